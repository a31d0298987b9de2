// The balancer's configuration as it stands in deploy/nginx.conf, before two nodes on this machine instead of Docker's names.
import { readFile } from 'node:fs/promises'
import { type Nginx, replaceOnce, runNginx } from '../support/nginx.ts'

export type { Nginx }

/** @param ports of the nodes, on loopback. @throws what `nginx -t` says, if it says anything */
export const startNginx = (ports: readonly number[]): Promise<Nginx> =>
  runNginx(async (folder, port) => {
    const config = await readFile(new URL('../../deploy/nginx.conf', import.meta.url), 'utf8')
    const servers = ports.map(each => `server 127.0.0.1:${each} max_fails=0;`).join(' ')
    // No node is remembered as failed: so it is with names that are resolved anew.
    return [
      ['listen 8080;', `listen 127.0.0.1:${port};`],
      ['set $nodes tidegate:4000;', 'set $nodes nodes;'],
      ['pid /tmp/nginx.pid;', `pid ${folder}/nginx.pid;`],
      ['http {', `http { upstream nodes { ${servers} }`],
    ].reduce((text, [from = '', to = '']) => replaceOnce(text, from, to), config)
  })
