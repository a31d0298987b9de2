// Servers do not outlive the process that started them, however that one ends: also killed with -9.
import { type ChildProcess, spawn } from 'node:child_process'

/** Reads what is there until this process ends, which closes its input; then ends and removes it. */
const script = `
servers=' '
folders=
while read -r what name; do
  case $what in
    folder) folders="$folders $name" ;;
    began) servers="$servers$name " ;;
    ended) servers=$(printf %s "$servers" | sed "s/ $name / /") ;;
  esac
done
for server in $servers; do kill -9 "$server"; done
for folder in $folders; do rm -rf "$folder"; done
`

let keeper: ChildProcess | null = null

/** @param name a process id, or a folder of whose path no part has a space */
export function tellKeeper(what: 'began' | 'ended' | 'folder', name: number | string): void {
  if (keeper === null) {
    // In a group of its own: what ends this process from a terminal does not end it.
    keeper = spawn('sh', ['-c', script], { stdio: ['pipe', 'ignore', 'ignore'], detached: true })
    keeper.on('error', () => {})
    keeper.stdin!.on('error', () => {})
    keeper.unref()
    // A pipe keeps this process from ending by itself.
    const { stdin } = keeper
    if (stdin !== null && 'unref' in stdin && typeof stdin.unref === 'function') stdin.unref()
  }
  keeper.stdin!.write(`${what} ${name}\n`)
}
