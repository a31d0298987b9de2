import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))
const pages = execFileSync('find', ['.', '-name', 'node_modules', '-prune', '-o', '-name', '*.md', '-print'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter(path => path !== '')

/** As GitHub makes it of a heading. */
const anchorOf = (heading: string): string =>
  heading
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-')

const withoutCode = (text: string): string => text.replace(/^```.*?^```/gms, '')

test.each(pages)('the links of %s lead somewhere', page => {
  const text = withoutCode(readFileSync(join(root, page), 'utf8'))
  const broken = [...text.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(match => match[1]!)
    .filter(link => !/^[a-z]+:/.test(link))
    .filter(link => {
      const [path = '', anchor] = link.split('#')
      const target = path === '' ? join(root, page) : join(root, dirname(page), path)
      if (!existsSync(target)) return true
      if (anchor === undefined || !target.endsWith('.md')) return false
      const headings = withoutCode(readFileSync(target, 'utf8')).matchAll(/^#+ (.+)$/gm)
      return ![...headings].some(heading => anchorOf(heading[1]!) === anchor)
    })
  expect(broken).toEqual([])
})

test.each(pages)('%s names only files that are there', page => {
  const text = withoutCode(readFileSync(join(root, page), 'utf8'))
  const paths = [...text.matchAll(/`((?:src|test|docs|scripts|migrations|bench)\/[\w./-]+\.\w+)`/g)].map(
    match => match[1]!,
  )
  expect(paths.filter(path => !existsSync(join(root, path)))).toEqual([])
})
