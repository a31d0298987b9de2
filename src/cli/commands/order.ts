// Gives an order from the terminal: the SQL function, with the names that were given.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { type AdminOptions, asAdministrator } from '../../server/admin/administrator.ts'
import { type OrderRow, orderCallOf, orderRefusalOf } from '../../server/orders/give-order.ts'

export type OrderKind = 'kick' | 'revoke' | 'refresh'

/** @param flags as commander has them: texts, by the names of the order
 *  @throws CONFIG_INVALID, DATABASE_UNREACHABLE, PRIVILEGE_MISSING, UNAVAILABLE where the database was not migrated */
export async function order(
  options: AdminOptions,
  kind: OrderKind,
  flags: Readonly<Record<string, string | undefined>>,
  print: (line: string) => void,
): Promise<void> {
  const names = Object.entries(flags).map(([name, text]) => [name, name.endsWith('Ms') ? Number(text) : text])
  try {
    const { text, values } = orderCallOf({ [kind]: Object.fromEntries(names) })
    await asAdministrator(options, { write: print }, async ({ client }) => {
      const { rows } = await client.query<OrderRow>(text, [...values]).catch((error: { code?: string }) => {
        // Told with who may do it.
        throw error.code === '42501' ? error : orderRefusalOf(error)
      })
      const { id, until } = rows[0]!.order
      print(`ordered: ${kind} ${id}${kind === 'kick' ? '' : `, in force until ${until}`}`)
    })
  } catch (error) {
    if (!(error instanceof TidegateError && error.code === 'BAD_FRAME')) throw error
    throw new TidegateError('CONFIG_INVALID', error.message, { cause: error.cause })
  }
}
