// Renders as a server does: a client for the request, and no connection.
import { createElement } from 'react'
import { renderToString } from 'react-dom/server'
import { connectTo, Rendered } from './rendered.ts'

/** @returns the HTML, and how the client is connected after it */
export function render(url: string): { html: string; status: string } {
  const tide = connectTo(url, 'a token that nobody asks for')
  const html = renderToString(createElement(Rendered, { tide }))
  return { html, status: tide.status.name }
}
