// docs/operations/doctor.md: what tidegate doctor looks at, from the table of its checks.
import { type Check, checks } from '../src/server/doctor/checks.ts'
import type { CheckArea } from '../src/server/doctor/finding.ts'

const areas: Readonly<Record<CheckArea, string>> = {
  postgres: 'Postgres',
  policies: 'Tables and policies',
  redis: 'Redis',
  configuration: 'Configuration',
  machine: 'Machine',
}

const intro = `# Doctor

\`tidegate doctor\` asks everything below of the database, Redis, the options and the machine it runs on, and says of each whether it holds, why,
and what to run if it does not. It takes the options of \`tidegate start\`: run it where the nodes run, with their environment.

\`\`\`sh
npx tidegate doctor
\`\`\`

What it prints stands alone on its lines, to be copied, with the names and numbers of your installation. Passwords and secrets never
appear: in their place stand \`$PGPASSWORD\` and \`$REDIS_PASSWORD\`, for a shell that knows them.

| Verdict | Means |
| --- | --- |
| \`ok\` | it holds |
| \`warning\` | it works, and may fail one night |
| \`failure\` | it does not work, or something may be lost |
| \`unknown\` | it could not be looked at; the reason says why |

| Exit code | Means |
| --- | --- |
| 0 | nothing failed; with \`--strict\`: nor is there a warning |
| 1 | something failed |
| 2 | something could not be looked at, and nothing failed |

\`--json\` prints the same for programs: \`{"release", "at", "verdict", "findings": [{"check", "area", "about", "verdict", "reason", "remedy":
{"kind", "text", "then"}, "code"}]}\`. \`check\` is stable; \`code\` is the one by which a start refuses or warns ([errors.md](../errors.md)). All
parts are looked at side by side, and each for 25 seconds at most: a database that does not answer does not keep back what there is to say of
Redis.

It changes nothing, but for a key \`{<TIDEGATE_NAME>}:doctor\` in Redis, one like it under the names of channels, and a file in the temporary
folder, all deleted at once: whether something may be written shows by writing. A node that starts looks at its options, its machine and Redis
in the same way, and logs each warning once, with its \`check\` and what to run.

Color is for terminals only, and off with \`NO_COLOR\`.

This page is written by \`npm run docs\` from the tables in \`src/server/doctor/checks.ts\` and \`src/server/doctor/database-checks.ts\`.`

export function doctorPage(): string {
  const all = Object.entries(checks) as [string, Check][]
  const sections = (Object.keys(areas) as CheckArea[]).map(area => {
    const rows = all.filter(([, check]) => check.area === area)
    const lines = rows.map(([name, { asks }]) => `| \`${name}\` | ${asks.replaceAll('|', '\\|')} |`)
    return ['', `## ${areas[area]}`, '', '| Check | Asks |', '| --- | --- |', ...lines].join('\n')
  })
  return `${[intro, ...sections].join('\n')}\n`
}
