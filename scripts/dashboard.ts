// docs/operations/grafana.json: a dashboard that Grafana imports, from the table of its panels.
// Source: Grafana, Dashboard JSON model
import { type Panel, rows } from './dashboard-panels.ts'

// biome-ignore lint/suspicious/noTemplateCurlyInString: filled in by Grafana, when the file is imported
const source = { type: 'prometheus', uid: '${DS_PROMETHEUS}' }
const letters = 'ABCDEFGH'

/** Four figures, or three graphs, beside each other. */
function place(panels: readonly Panel[], top: number): { x: number; y: number; w: number; h: number }[] {
  let [x, y, high] = [0, top, 0]
  return panels.map(({ isFigure = false }) => {
    const [w, h] = isFigure ? [6, 4] : [8, 8]
    if (x + w > 24) [x, y, high] = [0, y + high, 0]
    const at = { x, y, w, h }
    x += w
    high = Math.max(high, h)
    return at
  })
}

function panelOf(panel: Panel, id: number, gridPos: object): object {
  const { title, description, unit, isFigure = false, queries } = panel
  return {
    id,
    type: isFigure ? 'stat' : 'timeseries',
    title,
    description,
    datasource: source,
    gridPos,
    fieldConfig: {
      defaults: {
        unit,
        ...(isFigure ? {} : { min: 0, custom: { lineWidth: 1, fillOpacity: 8, showPoints: 'never' } }),
      },
      overrides: [],
    },
    options: isFigure
      ? { reduceOptions: { calcs: ['lastNotNull'] }, textMode: 'value_and_name', colorMode: 'none', graphMode: 'none' }
      : { legend: { displayMode: 'list', placement: 'bottom' }, tooltip: { mode: 'multi', sort: 'desc' } },
    targets: queries.map(({ expr, legend }, place) => ({
      refId: letters[place],
      datasource: source,
      expr,
      legendFormat: legend,
    })),
  }
}

function panels(): object[] {
  const made: object[] = []
  let [y, id] = [0, 1]
  for (const { title, panels } of rows) {
    made.push({ id: id++, type: 'row', title, collapsed: false, gridPos: { x: 0, y, w: 24, h: 1 }, panels: [] })
    const places = place(panels, y + 1)
    for (const [index, panel] of panels.entries()) made.push(panelOf(panel, id++, places[index]!))
    y = Math.max(...places.map(({ y, h }) => y + h))
  }
  return made
}

/** As the file has it. */
export const dashboard = (): string =>
  `${JSON.stringify(
    {
      __inputs: [
        {
          name: 'DS_PROMETHEUS',
          label: 'Prometheus',
          type: 'datasource',
          pluginId: 'prometheus',
          pluginName: 'Prometheus',
        },
      ],
      __requires: [
        { type: 'grafana', id: 'grafana', name: 'Grafana', version: '10.0.0' },
        { type: 'datasource', id: 'prometheus', name: 'Prometheus', version: '1.0.0' },
      ],
      title: 'Tidegate',
      uid: 'tidegate',
      description: 'Written by `npm run docs` from scripts/dashboard.ts. Alerts: docs/operations/alerts.md',
      tags: ['tidegate'],
      schemaVersion: 41,
      version: 1,
      editable: true,
      graphTooltip: 1,
      refresh: '30s',
      time: { from: 'now-1h', to: 'now' },
      timezone: 'browser',
      templating: {
        list: [
          {
            name: 'instance',
            label: 'Node',
            type: 'query',
            datasource: source,
            query: { query: 'label_values(tidegate_build_info, instance)', refId: 'instance' },
            definition: 'label_values(tidegate_build_info, instance)',
            includeAll: true,
            multi: true,
            allValue: '.*',
            current: { text: ['All'], value: ['$__all'] },
            refresh: 2,
            sort: 1,
          },
        ],
      },
      annotations: { list: [] },
      links: [],
      panels: panels(),
    },
    null,
    2,
  ).replace(/\[\n\s+("[^"\n]*")\n\s+\]/g, '[$1]')}\n`
