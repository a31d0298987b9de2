// What is refused at the door of channels, and why.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { ChannelPermission } from './guards/permission.ts'
import type { ChannelName } from './message.ts'

const maxTopicLength = 255

/** @throws TOPIC_INVALID */
export function assertTopic({ topic }: ChannelName): void {
  const isShort = topic !== '' && topic.length <= 2 * maxTopicLength && [...topic].length <= maxTopicLength
  if (isShort && topic.isWellFormed() && !/\p{Cc}/u.test(topic)) return
  throw new TidegateError(
    'TOPIC_INVALID',
    `${shown(topic)} is no topic: 1 to ${maxTopicLength} characters, none of them a control character`,
  )
}

/** @throws CHANNEL_REFUSED */
export function assertReceives(permission: ChannelPermission, name: ChannelName, needsPresence: boolean): void {
  const mayPresence = permission.may('receive', 'presence')
  if (needsPresence ? mayPresence : mayPresence || permission.may('receive', 'broadcast')) return
  throw channelRefused(name)
}

export const channelRefused = ({ topic }: ChannelName): TidegateError =>
  new TidegateError('CHANNEL_REFUSED', `no policy lets this reader SELECT from the topic ${shown(topic)}`)

export const notPublic = ({ topic }: ChannelName): TidegateError =>
  new TidegateError('CHANNEL_REFUSED', `no rule makes the topic ${shown(topic)} public`)

export const privateOnly = ({ topic }: ChannelName): TidegateError =>
  new TidegateError(
    'PRIVATE_ONLY',
    `only private channels are allowed, and ${shown(topic)} was asked for as a public one`,
  )

export const sendRefused = ({ topic }: ChannelName): TidegateError =>
  new TidegateError('SEND_REFUSED', `no policy lets this sender INSERT into the topic ${shown(topic)}`)

export const noLonger = ({ topic }: ChannelName): TidegateError =>
  new TidegateError('CHANNEL_CLOSED', `${shown(topic)}: what let this reader in holds no more`)

export const historyOff = ({ topic }: ChannelName): TidegateError =>
  new TidegateError('HISTORY_OFF', `the rule of the topic ${shown(topic)} keeps no history`)

export const presenceOff = ({ topic }: ChannelName): TidegateError =>
  new TidegateError('PRESENCE_OFF', `the rule of the topic ${shown(topic)} allows no presence`)

const shown = (topic: string): string => JSON.stringify(topic.slice(0, 80))
