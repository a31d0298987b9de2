// Where no event trigger could be made: changes are polled for, and take effect within two seconds.
import { testCatalogChanges } from '../support/catalog-changes.ts'

testCatalogChanges(false)
