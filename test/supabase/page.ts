// The script of a page with Supabase's clients in it.
import { Performer, type Told } from './performer.ts'

declare function told(client: string, topic: string | null, told: Told): Promise<void>

const performer = new Performer((client, topic, what) => void told(client, topic, what))
Object.assign(globalThis, { performer })
