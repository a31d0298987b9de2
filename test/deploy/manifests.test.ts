import { execFileSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { loadConfig, optionNames } from '../../src/server/config/config.ts'
import { programFromPackage } from '../support/debian-package.ts'
import { containerOf, manifest, manifestsOf, readDeploy } from './manifests.ts'

const deployment = manifest('Deployment')
const node = containerOf(deployment)
const settings = manifest('ConfigMap').data!
const secrets = {
  DATABASE_URL: 'postgres://tidegate:x@postgres:5432/app',
  ADMIN_DATABASE_URL: 'postgres://postgres:x@postgres:5432/app',
  REDIS_URL: 'redis://:x@redis:6379',
  JWT_SECRET: '0123456789abcdef0123456789abcdef',
  OPERATOR_TOKEN: 'fedcba9876543210fedcba9876543210',
}
const labels = deployment.spec.template.metadata.labels

test('Kubernetes: the settings are options, with values that fit', () => {
  const known: readonly string[] = optionNames
  const named = [...Object.keys(settings), ...node.env.map(({ name }) => name)]
  expect(named.filter(name => !known.includes(name))).toEqual([])
  const config = loadConfig({ HOST: '0.0.0.0', PORT: '4000', ...settings, ...secrets })
  expect(node.ports).toEqual([
    { name: 'http', containerPort: config.port },
    { name: 'admin', containerPort: config.adminPort },
  ])
})

test('Kubernetes: every secret comes from the Secret, which the first lines say how to make', () => {
  const migrate = containerOf(manifest('Job', 'tidegate-migrate'))
  const keys = [...node.env, ...migrate.env].map(({ name, valueFrom: { secretKeyRef } }) => {
    expect(secretKeyRef).toEqual({ name: 'tidegate', key: name })
    return name
  })
  const made = [...readDeploy('kubernetes/tidegate.yaml').matchAll(/--from-literal=(\w+)=/g)].map(([, name]) => name)
  expect(made.sort()).toEqual(Object.keys(secrets).sort())
  expect([...new Set(keys)].sort()).toEqual(made)
  expect(Object.keys(settings).filter(name => /URL|SECRET|TOKEN|KEY/.test(name))).toEqual([])
})

test('Kubernetes: what has to find the nodes finds them, and the migration is none', () => {
  const finds = (selector: Readonly<Record<string, string>>, of: Readonly<Record<string, string>>): boolean =>
    Object.entries(selector).every(([name, value]) => of[name] === value)
  const migration = manifest('Job', 'tidegate-migrate').spec.template.metadata.labels
  for (const selector of [
    deployment.spec.selector.matchLabels,
    manifest('Service').spec.selector,
    manifest('Service', 'tidegate-admin').spec.selector,
    manifest('PodDisruptionBudget').spec.selector.matchLabels,
    deployment.spec.template.spec.topologySpreadConstraints[0].labelSelector.matchLabels,
  ]) {
    expect(finds(selector, labels)).toBe(true)
    expect(finds(selector, migration)).toBe(false)
  }
  const monitor = manifest('ServiceMonitor', 'tidegate', 'kubernetes/monitoring.yaml')
  expect(finds(monitor.spec.selector.matchLabels, manifest('Service', 'tidegate-admin').metadata.labels)).toBe(true)
  expect(finds(monitor.spec.selector.matchLabels, manifest('Service').metadata.labels)).toBe(false)
  expect(monitor.spec.endpoints[0].authorization.credentials).toEqual({ name: 'tidegate', key: 'OPERATOR_TOKEN' })
})

test('Kubernetes: a node that leaves has the time that its drain takes', () => {
  const config = loadConfig({ ...settings, ...secrets })
  const drainSeconds = (5000 + config.drainTimeoutMs + 3000) / 1000
  expect(deployment.spec.template.spec.terminationGracePeriodSeconds).toBeGreaterThanOrEqual(2 * drainSeconds)
  // The probe makes the node wait until it has been seen red.
  const { periodSeconds, failureThreshold } = node.readinessProbe
  expect(periodSeconds * failureThreshold).toBeLessThan(5)
  expect(deployment.spec.strategy.rollingUpdate).toEqual({ maxSurge: 1, maxUnavailable: 0 })
})

test('Kubernetes: nothing runs as root, writes into its image or holds a token of the cluster', () => {
  for (const each of [deployment, manifest('Job', 'tidegate-migrate')]) {
    const pod = each.spec.template.spec
    expect([pod.automountServiceAccountToken, pod.securityContext.runAsNonRoot]).toEqual([false, true])
    expect(containerOf(each).securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    })
    expect(containerOf(each).resources.limits.cpu).toBeUndefined()
  }
  expect(manifestsOf('kubernetes/tidegate.yaml').map(({ kind }) => kind)).not.toContain('ClusterRole')
})

const unit = readDeploy('systemd/tidegate.service')
const settingOf = (name: string): string => unit.match(new RegExp(`^${name}=(.*)$`, 'm'))?.[1] ?? ''

test('systemd: the drain has its time, and the connections their files', () => {
  const config = loadConfig(secrets)
  expect(Number(settingOf('TimeoutStopSec'))).toBeGreaterThanOrEqual((2 * (5000 + config.drainTimeoutMs + 3000)) / 1000)
  expect(Number(settingOf('LimitNOFILE'))).toBeGreaterThanOrEqual(config.maxConnections + 1100)
  expect([settingOf('KillSignal'), settingOf('Restart'), settingOf('DynamicUser')]).toEqual([
    'SIGTERM',
    'on-failure',
    'yes',
  ])
})

test('systemd takes the unit as it is, and calls its exposure ok', async () => {
  const analyze = await programFromPackage(['systemd-analyze'], 'systemd')
  const file = new URL('../../deploy/systemd/tidegate.service', import.meta.url).pathname
  expect(execFileSync(analyze, ['verify', file], { encoding: 'utf8', stdio: 'pipe' })).toBe('')
  const judged = execFileSync(analyze, ['security', '--offline=true', '--no-pager', '--threshold=20', file], {
    encoding: 'utf8',
  })
  expect(judged).toMatch(/Overall exposure level for tidegate\.service: [01]\.\d OK/)
})
