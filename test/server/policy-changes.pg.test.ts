// Where an event trigger announces them: changes take effect at their own commit.
import { testCatalogChanges } from '../support/catalog-changes.ts'

testCatalogChanges(true)
