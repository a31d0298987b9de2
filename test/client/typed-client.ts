// What an application imports.
export { type Client, createClient, type LiveUpdate } from '../../src/client/client.ts'

// As kysely-codegen writes it.
export type JsonValueOfTests = JsonArray | JsonObject | JsonPrimitive
type JsonArray = JsonValueOfTests[]
type JsonObject = { [x: string]: JsonValueOfTests | undefined }
type JsonPrimitive = boolean | number | string | null
