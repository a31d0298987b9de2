// Whether the slot of this deployment can go on, how much WAL it holds back, and what keeps it from moving. Pure.
import { literal } from '../admin/script.ts'
import { keepSizeReason, keepSizeStatements } from '../wal/preflight.ts'
import { isLost, isOverLimit, overLimit, reasonOfLoss, type SlotRow } from '../wal/slot.ts'
import { failure, ok, setting, warning } from './checks.ts'
import { sql } from './database-checks.ts'
import type { OpenTransaction, PreparedTransaction, ServerFacts } from './database-facts.ts'
import type { Finding } from './finding.ts'

/** What is long. */
export interface Patience {
  /** A transaction that has written. Default 5 minutes. */
  readonly transactionMs: number
  /** A slot that nobody reads. Default 5 minutes. */
  readonly idleSlotMs: number
}

export const defaultPatience: Patience = { transactionMs: 300_000, idleSlotMs: 300_000 }

export interface OwnSlot extends SlotRow {
  /** Since when nobody reads it; null where somebody does, and before Postgres 17. */
  readonly idleMs: number | null
}

const MiB = 1024 * 1024

export function walLimitFinding(
  { maxSlotWalKeepSizeMb }: Pick<ServerFacts, 'maxSlotWalKeepSizeMb'>,
  slotMaxBytes: number,
): Finding {
  const remedy = sql(keepSizeStatements(slotMaxBytes).join('\n'))
  if (maxSlotWalKeepSizeMb === -1) return failure('slot-wal-limit', keepSizeReason, remedy)
  const reason = `max_slot_wal_keep_size is ${maxSlotWalKeepSizeMb} MB, SLOT_MAX_BYTES ${Math.round(slotMaxBytes / MiB)} MB`
  if (maxSlotWalKeepSizeMb * MiB > slotMaxBytes) return ok('slot-wal-limit', reason)
  return warning(
    'slot-wal-limit',
    `${reason}: the server gives the slot up before Tidegate would, and every client starts over`,
    remedy,
  )
}

/** @param slots of this deployment */
export function slotFindings(
  slots: readonly OwnSlot[],
  { slotMaxBytes, idleSlotMs }: Pick<Patience, 'idleSlotMs'> & { readonly slotMaxBytes: number },
): Finding[] {
  if (slots.length === 0) return [ok('slot', 'there is none yet: the first node that starts makes it')]
  // A lost one is dropped by the next node that starts; until then it stands in the way of nobody.
  const used = slots.find(({ activePid }) => activePid !== null) ?? slots.find(slot => !isLost(slot)) ?? slots[0]!
  return slots.flatMap(slot => {
    const findings = [slotFinding(slot, used, idleSlotMs)]
    if (!isLost(slot)) findings.push(retainedFinding(slot, slotMaxBytes))
    return findings
  })
}

function slotFinding(slot: OwnSlot, used: OwnSlot, idleSlotMs: number): Finding {
  const { slotName, activePid, idleMs } = slot
  const about = { about: slotName }
  const drop = sql(`SELECT pg_drop_replication_slot(${literal(slotName)});`)
  if (isLost(slot))
    return failure(
      'slot',
      `the slot is lost: ${reasonOfLoss(slot)}; the next node that leads makes another, and every client starts over`,
      drop,
      { ...about, code: 'SLOT_LOST' },
    )
  if (slot !== used)
    return warning('slot', `beside ${used.slotName} it is one too many, and holds WAL back for nobody`, drop, about)
  if (activePid !== null) return ok('slot', `process ${activePid} streams from it`, about)
  if (idleMs === null) return ok('slot', 'nobody streams from it now', about)
  const minutes = Math.floor(idleMs / 60_000)
  if (idleMs <= idleSlotMs) return ok('slot', `nobody has streamed from it for ${minutes} min`, about)
  return warning(
    'slot',
    `nobody has streamed from it for ${minutes} min, and it holds WAL back: start a node, or drop it if none will come`,
    drop,
    about,
  )
}

function retainedFinding(slot: OwnSlot, slotMaxBytes: number): Finding {
  const retained = Number(slot.retainedBytes)
  const megabytes = Math.round(retained / MiB)
  const share = Math.round((retained / slotMaxBytes) * 100)
  const reason = `it holds back ${megabytes} MB of WAL, ${share} % of SLOT_MAX_BYTES`
  const about = { about: slot.slotName }
  if (2 * retained <= slotMaxBytes) return ok('slot-wal', reason, about)
  const raise = setting(`SLOT_MAX_BYTES=${Math.ceil((4 * retained) / MiB) * MiB}`)
  const why =
    slot.activePid === null
      ? 'nobody reads it: start a node'
      : 'its reader is behind, or a long transaction holds it: see long-transactions'
  if (!isOverLimit(slot, slotMaxBytes)) return warning('slot-wal', `${reason}; ${why}`, raise, about)
  return failure('slot-wal', `${overLimit(slot, slotMaxBytes)}: it is dropped at the next look; ${why}`, raise, {
    ...about,
    code: 'SLOT_OVER_LIMIT',
  })
}

/** Transactions begun since one that may not be looked at: it is old, whatever its age. */
const manyXids = 100_000

export function transactionFindings(
  open: readonly OpenTransaction[],
  { seesAll, transactionMs }: Pick<Patience, 'transactionMs'> & { readonly seesAll: boolean },
): Finding[] {
  const old = open.filter(({ ageMs, ageXids }) => (ageMs === null ? ageXids > manyXids : ageMs > transactionMs))
  const hidden = seesAll ? '' : ", as far as this login sees others'"
  if (old.length === 0) return [ok('long-transactions', `no transaction holds the slot back${hidden}`)]
  return old.slice(0, mostToName).map(({ pid, role, application, state, ageMs, ageXids }) => {
    const age = ageMs === null ? `${ageXids} transactions` : `${Math.floor(ageMs / 1000)} s`
    const who = [role, application].filter(name => name !== null).join(', ')
    return warning(
      'long-transactions',
      `a transaction of ${who === '' ? 'another role' : who} has run for ${age}${state === null ? '' : ` and is ${state}`}: WAL is kept from its beginning on, and no new slot can be made while it runs`,
      sql(`SELECT pg_terminate_backend(${pid}, 5000);`),
      { about: String(pid) },
    )
  })
}

/** Of each kind: more would hide the rest. */
const mostToName = 10

export function preparedFindings(
  prepared: readonly PreparedTransaction[],
  { transactionMs }: Pick<Patience, 'transactionMs'>,
): Finding[] {
  const old = prepared.filter(({ ageMs }) => ageMs > transactionMs)
  if (old.length === 0) return [ok('prepared-transactions', 'no prepared transaction holds the slot back')]
  return old
    .slice(0, mostToName)
    .map(({ gid, database, owner, ageMs }) =>
      warning(
        'prepared-transactions',
        `${owner} prepared it ${Math.floor(ageMs / 1000)} s ago in the database ${database}, and nobody has ended it: WAL is kept from its beginning on. To keep what it did, COMMIT PREPARED instead`,
        sql(`ROLLBACK PREPARED ${literal(gid)};`, `run it in the database ${database}`),
        { about: gid },
      ),
    )
}
