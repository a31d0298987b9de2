// What `tidegate explain --json` prints and `GET /v1/explain` answers. Names and meanings stay; fields may be added.

export interface Explanation {
  /** `public.messages` */
  readonly table: string
  readonly role: string
  /** `bypassed`: it is on, but does not bind this role (superuser, BYPASSRLS, the owner without FORCE). */
  readonly rowSecurity: 'on' | 'off' | 'bypassed'
  /** Every policy that binds the role is compiled, so what is sent is exact to the commit. */
  readonly exact: boolean
  /** What keeps a subscription from being accepted, or told of grants at once; empty when nothing does. */
  readonly problems: readonly Problem[]
  readonly warnings: readonly { readonly code: string; readonly message: string }[]
  readonly columns: ColumnsExplanation
  /** Those FOR SELECT and FOR ALL, by name. */
  readonly policies: readonly PolicyExplanation[]
  /** The table itself, then those that its policies read. */
  readonly tables: readonly TableExplanation[]
  /** Null when no key was given. */
  readonly row: RowExplanation | null
}

export interface Problem {
  /** As a subscription would be told, from docs/errors.md. */
  readonly code: string
  readonly message: string
  /** What to run, word for word; null when the message says what to do. */
  readonly run: string | null
}

export interface ColumnsExplanation {
  /** What the role may SELECT. */
  readonly readable: readonly string[]
  readonly hidden: readonly string[]
  /** Hidden columns that decide all the same: policies may read them. */
  readonly hiddenButRead: readonly string[]
}

export interface PolicyExplanation {
  readonly name: string
  readonly kind: 'permissive' | 'restrictive'
  /** Names; `public` is everybody. */
  readonly roles: readonly string[]
  /** USING, as Postgres prints it. */
  readonly using: string
  /** `asked`: only Postgres can judge it. `refused`: a SELECT raises, or a
   *  table that it reads is not tracked. `not applied`: it does not bind this role. */
  readonly judged: 'compiled' | 'asked' | 'refused' | 'not applied'
  /** Why it is not compiled; null when it is, or is not applied. */
  readonly reason: string | null
  readonly reads: {
    /** Of the row itself. */
    readonly columns: readonly string[]
    /** Settings that carry claims: `request.jwt.claims`. */
    readonly settings: readonly string[]
    /** Whether the time decides. */
    readonly time: boolean
    /** Tables of its subqueries, at every depth: also those that functions and the inner tables' own policies read. Of one
     *  that is not compiled, those that Postgres has recorded. */
    readonly tables: readonly { readonly table: string; readonly columns: readonly string[] }[]
  }
}

export interface TableExplanation {
  readonly table: string
  readonly tracked: boolean
  /** Whether the server's login can read it whole, and how. */
  readonly readThrough: 'table' | 'function' | null
  readonly replicaIdentity: 'default' | 'nothing' | 'full' | 'index'
  /** What policies read of it, and its primary key where it is the table itself. */
  readonly columns: readonly string[]
  /** Of those, what old rows in the WAL lack. */
  readonly missing: readonly string[]
}

export interface RowExplanation {
  readonly key: Readonly<Record<string, string>>
  readonly found: boolean
  /** Null when neither Tidegate nor Postgres can say. */
  readonly visible: boolean | null
  /** `postgres`: it depends on a policy that is asked. `refused`: nothing is shown to this reader, see `code`. */
  readonly judgedBy: 'tidegate' | 'postgres' | 'refused'
  /** Why nothing is shown: CLAIM_INVALID, TABLE_REFUSED, INDEX_NOT_READABLE ...; else null. */
  readonly code: string | null
  /** One sentence. */
  readonly because: string
  /** Those that bind the role. */
  readonly policies: readonly PolicyAnswer[]
  readonly postgres: PostgresAnswer
  /** Whether Postgres says the same of the same snapshot; null when one of the two does not say. False is a fault of
   *  Tidegate. */
  readonly agrees: boolean | null
}

export interface PolicyAnswer {
  readonly name: string
  readonly kind: 'permissive' | 'restrictive'
  /** `unknown` is SQL's NULL, which hides as `false` does. `invalid`: the claims do not fit it. `failed`: this row cannot be
   *  judged. */
  readonly answer: 'true' | 'false' | 'unknown' | 'asked' | 'refused' | 'invalid' | 'failed'
  /** Why, for the last four. */
  readonly reason: string | null
  readonly memberships: readonly MembershipLook[]
}

/** One subquery, as this row asks it. */
export interface MembershipLook {
  readonly table: string
  /** What the subquery joins or compares by equality: column and value. */
  readonly key: Readonly<Record<string, string | null>>
  /** It stands under a NOT: rows here speak against. */
  readonly negated: boolean
  /** Rows under the key that satisfy the whole subquery, the reader's own policies on the table included. */
  readonly rows: number
  /** Rows under the key, whether or not they satisfy the rest. */
  readonly candidates: number
  /** Of a chain: what each row under the key leads to, of the first ten. */
  readonly through: readonly (readonly MembershipLook[])[]
}

export interface PostgresAnswer {
  /** What a SELECT by this key returned under the role and the claims; null when it raised. */
  readonly visible: boolean | null
  /** SQLSTATE of the error; its text is left out, because it may quote the row. */
  readonly sqlState: string | null
}
