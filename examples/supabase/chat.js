const client = supabase.createClient(SUPABASE_URL, SUPABASE_KEY)
const room = 'lobby'
const element = id => document.getElementById(id)

let user = null
let name = ''
let channel = null
const messages = new Map()
const typing = new Map()

element('enter').addEventListener('submit', async event => {
  event.preventDefault()
  const { email, password } = Object.fromEntries(new FormData(event.target))
  const { data, error } = await client.auth.signInWithPassword({ email, password })
  if (error) return tell(error.message)
  user = data.user
  name = user.email.split('@')[0]
  await open()
})

async function open() {
  tell('')
  element('enter').hidden = true
  element('chat').hidden = false
  // Needed for private channels.
  await client.realtime.setAuth()
  channel = client
    .channel(`room:${room}`, { config: { private: true, presence: { key: user.id } } })
    .on('postgres_changes', { event: '*', schema: 'public', table: 'messages', filter: `room=eq.${room}` }, change => {
      if (change.eventType === 'DELETE') messages.delete(change.old.id)
      else messages.set(change.new.id, change.new)
      showMessages()
    })
    .on('broadcast', { event: 'typing' }, ({ payload }) => showTyping(payload.name))
    .on('presence', { event: 'sync' }, () => {
      const people = Object.values(channel.presenceState()).map(([first]) => first.name)
      element('people').replaceChildren(...people.sort().map(person => make('li', person)))
    })
    .subscribe(async (status, error) => {
      element('status').textContent = status
      if (error) tell(error.message)
      if (status !== 'SUBSCRIBED') return
      tell('')
      await load()
      await channel.track({ name, online_at: new Date().toISOString() })
    })
}

async function load() {
  const { data, error } = await client.from('messages').select().eq('room', room).order('id')
  if (error) return tell(error.message)
  messages.clear()
  for (const message of data) messages.set(message.id, message)
  showMessages()
}

element('write').addEventListener('submit', async event => {
  event.preventDefault()
  const body = element('body').value.trim()
  if (!body) return
  element('body').value = ''
  const { error } = await client.from('messages').insert({ room, name, body })
  if (error) tell(error.message)
})

element('body').addEventListener('input', () => {
  channel.send({ type: 'broadcast', event: 'typing', payload: { name } })
})

element('leave').addEventListener('click', async () => {
  await client.removeChannel(channel)
  await client.auth.signOut()
  location.reload()
})

function showMessages() {
  const sorted = [...messages.values()].sort((a, b) => a.id - b.id)
  element('messages').replaceChildren(
    ...sorted.map(message => {
      const line = make('li', `${message.name}: ${message.body}`)
      if (message.user_id === user.id) {
        const remove = make('button', 'Delete')
        remove.addEventListener('click', async () => {
          const { error } = await client.from('messages').delete().eq('id', message.id)
          if (error) tell(error.message)
        })
        line.append(remove)
      }
      return line
    }),
  )
}

function showTyping(who) {
  clearTimeout(typing.get(who))
  const show = () => {
    element('typing').textContent = typing.size > 0 ? `${[...typing.keys()].join(', ')} typing` : ''
  }
  const stop = () => {
    typing.delete(who)
    show()
  }
  typing.set(who, setTimeout(stop, 3000))
  show()
}

function make(tag, text) {
  const made = document.createElement(tag)
  made.textContent = text
  return made
}

function tell(text) {
  element('problem').textContent = text
}
