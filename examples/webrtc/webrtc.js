// Browsers that find each other in a channel, and from then on talk directly. The channel carries what WebRTC needs for that: who is
// there, and each peer's offers, answers and candidates, `to` one connection. Who may enter is said by the channel's policies.

/** @param url as 'ws://localhost:4000/v1/socket'
 *  @param onPeer called with a name and an open RTCDataChannel for each other browser in the channel */
export function meet({ url, token, topic, onPeer, rtc = {} }) {
  const socket = new WebSocket(url)
  const send = frame => socket.send(JSON.stringify(frame))
  const tell = (connection, event, payload) => send({ type: 'send', id: 1, event, payload, to: { connection } })
  const peers = new Map()
  let me

  socket.onopen = () => send({ type: 'auth', token })
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data)
    if (frame.type === 'welcome') {
      me = frame.connection
      send({ type: 'join', id: 1, topic })
    } else if (frame.type === 'joined') send({ type: 'send', id: 1, event: 'hello' })
    // `sender` is set by the server: nobody can speak in another's name.
    else if (frame.type === 'message' && frame.sender?.connection) heard(frame.sender.connection, frame)
    else if (frame.type === 'error') console.error(frame.code, frame.message)
  }

  function heard(from, { event, payload, to }) {
    if (event === 'hello' && !to) tell(from, 'hello')
    if (event === 'bye') return forget(from)
    const peer = peers.get(from) ?? meetPeer(from)
    // One after the other: a candidate can be added only once the offer or answer before it is.
    peer.doing = peer.doing.then(() => take(from, peer.connection, event, payload)).catch(console.error)
  }

  async function take(from, connection, event, payload) {
    if (event === 'offer' || event === 'answer') await connection.setRemoteDescription(payload)
    if (event === 'candidate') await connection.addIceCandidate(payload)
    if (event === 'offer') {
      await connection.setLocalDescription()
      tell(from, 'answer', connection.localDescription)
    }
  }

  function meetPeer(name) {
    const connection = new RTCPeerConnection(rtc)
    const peer = { connection, doing: Promise.resolve() }
    peers.set(name, peer)
    connection.onicecandidate = ({ candidate }) => candidate && tell(name, 'candidate', candidate)
    connection.ondatachannel = ({ channel }) => opened(name, channel)
    connection.onconnectionstatechange = () => connection.connectionState === 'failed' && forget(name)
    // Both have heard of each other, and exactly one of them offers.
    if (me > name) {
      opened(name, connection.createDataChannel('data'))
      peer.doing = connection.setLocalDescription().then(() => tell(name, 'offer', connection.localDescription))
    }
    return peer
  }

  function opened(name, channel) {
    if (channel.readyState === 'open') onPeer(name, channel)
    else channel.onopen = () => onPeer(name, channel)
  }

  function forget(name) {
    peers.get(name)?.connection.close()
    peers.delete(name)
  }

  return {
    leave() {
      send({ type: 'send', id: 1, event: 'bye' })
      for (const name of [...peers.keys()]) forget(name)
      socket.close()
    },
  }
}
