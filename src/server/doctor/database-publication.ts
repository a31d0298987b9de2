// Whether what migrate installs is there as this release needs it, and whether the publication publishes all that is followed. Pure.
import { identifier, qualified } from '../admin/script.ts'
import { failure, ok, shell, warning } from './checks.ts'
import { sql } from './database-checks.ts'
import type { Expected, Installed, PublicationState, PublishedTableState } from './database-installed.ts'
import type { Finding } from './finding.ts'

const migrate = shell('tidegate migrate', 'as whoever may: ADMIN_DATABASE_URL')

export function installationFindings(installed: Installed, expected: Expected): Finding[] {
  const found = [schemaFinding(installed, expected)]
  if (installed.hasSchema) found.push(grantsFinding(installed), eventTriggerFinding(installed, expected))
  return found
}

function schemaFinding(installed: Installed, expected: Expected): Finding {
  if (!installed.hasSchema) return failure('schema', 'there is no schema tidegate in this database', migrate)
  const tables = expected.tables.filter(name => !installed.tables.includes(name))
  const { migrations } = installed
  const left = migrations === null ? [] : expected.migrations.filter(name => !migrations.includes(name))
  const missing = expected.functions.filter(({ name }) => !installed.functions.some(each => each.name === name))
  const lacks = [
    ...left.map(name => `the migration ${name}`),
    ...(left.length > 0 ? [] : tables.map(name => `the table tidegate.${name}`)),
    ...missing.map(({ name }) => `the function ${name}`),
  ]
  if (lacks.length > 0)
    return failure('schema', `the schema tidegate is of an older release: it lacks ${lacks.join(', ')}`, migrate)
  const others = expected.functions.flatMap(({ name, body, sql: statement }) => {
    const is = installed.functions.find(each => each.name === name)!
    return is.body === body ? [] : [{ name, statement, isReplaced: is.isReplaced === true }]
  })
  if (others.length === 0) return ok('schema', 'the schema tidegate is as this release needs it')
  // What somebody put in the place of ours, migrate leaves alone.
  const replaced = others.filter(({ isReplaced }) => isReplaced)
  const names = (list: readonly { readonly name: string }[]): string => list.map(({ name }) => name).join(', ')
  if (replaced.length === 0) return warning('schema', `of another release than this one: ${names(others)}`, migrate)
  return warning(
    'schema',
    `somebody changed ${names(replaced)}`,
    sql(replaced.map(({ statement }) => `${statement.replace(/;\s*$/, '')};`).join('\n')),
  )
}

function grantsFinding({ missingGrants }: Installed): Finding {
  if (missingGrants.length === 0) return ok('login-grants', 'the login may use what migrate installed')
  return failure(
    'login-grants',
    'the login may not use all that migrate installed: migrate ran for another login',
    sql(missingGrants.join('\n')),
    { code: 'PRIVILEGE_MISSING' },
  )
}

function eventTriggerFinding({ eventTriggers }: Installed, expected: Expected): Finding {
  const late =
    'a change of a policy or a privilege takes effect within two seconds, not at its own commit, and a partition that is added to a tracked table may refuse UPDATE'
  const missing = expected.eventTriggers.filter(name => !eventTriggers.some(each => each.name === name))
  if (missing.length > 0)
    return warning(
      'event-triggers',
      `there is no event trigger ${missing.join(', ')}: ${late}`,
      shell('tidegate migrate', 'as a superuser, or whom the provider lets make event triggers: ADMIN_DATABASE_URL'),
    )
  const off = eventTriggers.filter(({ enabled }) => enabled === 'D').map(({ name }) => name)
  if (off.length === 0) return ok('event-triggers', 'changes of policies are announced at their commit')
  return warning(
    'event-triggers',
    `${off.join(', ')} ${off.length === 1 ? 'is' : 'are'} disabled: ${late}`,
    sql(off.map(name => `ALTER EVENT TRIGGER ${identifier(name)} ENABLE;`).join('\n')),
  )
}

/** @param name of the publication; whether it is there at all is for the preflight to say */
export function publicationFindings(name: string, publication: PublicationState): Finding[] {
  const alter = `ALTER PUBLICATION ${identifier(name)}`
  return [
    operationsFinding(publication, alter),
    rootFinding(publication, alter),
    ...generatedFindings(publication, alter),
    ...scopeFindings(name, publication, alter),
    ...filterFindings(publication, alter),
  ]
}

const operations = ['insert', 'update', 'delete', 'truncate']

function operationsFinding({ publishes }: PublicationState, alter: string): Finding {
  const left = operations.filter(operation => !publishes.includes(operation))
  if (left.length === 0) return ok('publication-operations', `it publishes ${operations.join(', ')}`)
  return failure(
    'publication-operations',
    `it leaves out ${left.join(', ')}: nobody is told of those`,
    sql(`${alter} SET (publish = '${operations.join(', ')}');`),
  )
}

function rootFinding({ viaRoot, tables }: PublicationState, alter: string): Finding {
  if (viaRoot) return ok('publication-root', 'publish_via_partition_root is on')
  const partitioned = tables.filter(({ isPartitioned }) => isPartitioned).map(nameOf)
  const judge = partitioned.length > 0 ? failure : warning
  return judge(
    'publication-root',
    `publish_via_partition_root is off: changes of partitioned tables${partitioned.length > 0 ? ` (${partitioned.join(', ')})` : ''} come under the names of their partitions, which nobody follows`,
    sql(`${alter} SET (publish_via_partition_root = true);`),
  )
}

function generatedFindings({ generated }: PublicationState, alter: string): Finding[] {
  if (generated === null) return []
  if (generated) return [ok('publication-generated', 'publish_generated_columns is stored')]
  return [
    warning(
      'publication-generated',
      'publish_generated_columns is not stored: Postgres refuses UPDATE on a tracked table that gets a stored generated column',
      sql(`${alter} SET (publish_generated_columns = stored);`),
    ),
  ]
}

function scopeFindings(name: string, publication: PublicationState, alter: string): Finding[] {
  const { isOfAllTables, schemas, tables, generated } = publication
  if (isOfAllTables) {
    const kept = tables.filter(table => table.isReady || isOurs(table))
    return [
      warning(
        'publication-scope',
        'it is FOR ALL TABLES: all that is written goes through the stream, and Postgres refuses UPDATE on tables without a primary key',
        sql(
          [
            'BEGIN;',
            `DROP PUBLICATION ${identifier(name)};`,
            `CREATE PUBLICATION ${identifier(name)} FOR TABLE ${kept.map(quote).join(', ')} WITH (publish_via_partition_root = true${generated === null ? '' : ', publish_generated_columns = stored'});`,
            'COMMIT;',
          ].join('\n'),
        ),
      ),
    ]
  }
  const found: Finding[] = []
  for (const schema of schemas) {
    const kept = tables.filter(table => table.schema === schema && !table.isNamed && table.isReady)
    const add = kept.length === 0 ? [] : [`${alter} ADD TABLE ${kept.map(quote).join(', ')};`]
    found.push(
      warning(
        'publication-scope',
        `it has all tables of the schema ${schema}: those made later are streamed, tracked or not`,
        sql(['BEGIN;', `${alter} DROP TABLES IN SCHEMA ${identifier(schema)};`, ...add, 'COMMIT;'].join('\n')),
        { about: schema },
      ),
    )
  }
  if (!tables.some(table => nameOf(table) === 'tidegate.orders'))
    found.push(
      failure(
        'publication-scope',
        'tidegate.orders is not in it: tidegate.kick and tidegate.revoke are not heard',
        sql(`${alter} ADD TABLE tidegate.orders;`),
        { about: 'tidegate.orders' },
      ),
    )
  if (found.length > 0) return found
  const followed = tables.filter(table => !isOurs(table)).length
  return [ok('publication-scope', `it has ${followed} tracked ${followed === 1 ? 'table' : 'tables'}, by name`)]
}

function filterFindings({ tables }: PublicationState, alter: string): Finding[] {
  const found = tables
    .filter(({ rowFilter, columns }) => rowFilter !== null || columns !== null)
    .map(table => {
      const what =
        table.rowFilter === null
          ? `the columns ${table.columns!.join(', ')} alone: clients see no other`
          : `rows of ${table.rowFilter} alone: it cannot be followed`
      return (table.rowFilter === null ? warning : failure)(
        'publication-filter',
        `the publication has ${what}`,
        sql(`BEGIN;\n${alter} DROP TABLE ${quote(table)};\n${alter} ADD TABLE ${quote(table)};\nCOMMIT;`),
        { about: nameOf(table) },
      )
    })
  return found.length > 0 ? found : [ok('publication-filter', 'every table is published whole')]
}

const isOurs = (table: PublishedTableState): boolean =>
  nameOf(table) === 'tidegate.orders' || nameOf(table) === 'realtime.messages'

const nameOf = ({ schema, name }: PublishedTableState): string => `${schema}.${name}`
const quote = ({ schema, name }: PublishedTableState): string => qualified(schema, name)
