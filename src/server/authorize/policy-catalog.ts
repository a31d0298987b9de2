// The catalog with the compiler of policies: reading lies upstream of compiling, so it is handed in here.
import { type CatalogOptions, PostgresCatalog } from '../catalog/catalog.ts'
import { loadGrammar } from './parse-sql.ts'
import { compileAccess } from './policies.ts'

/** Reads through the pool with at most one connection per call. */
export const createCatalog = (options: Omit<CatalogOptions, 'compiler'>): PostgresCatalog =>
  new PostgresCatalog({ ...options, compiler: () => loadGrammar().then(() => compileAccess) })
