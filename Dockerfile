# One node of Tidegate: the compiled sources, production dependencies, and nothing that could swallow a signal.
#
#   docker build -t tidegate .
#   docker run --rm tidegate --help
#
# Node of the same major version as package.json asks for; pin it by digest where builds must be the same byte for byte.
ARG NODE_IMAGE=node:24-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /build
COPY package.json package-lock.json ./
# No package needs its install script to compile ours: those only fetch programs for the tests.
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY scripts/build.ts scripts/
COPY src src
RUN node scripts/build.ts

FROM ${NODE_IMAGE} AS dependencies
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund

FROM ${NODE_IMAGE}
ENV NODE_ENV=production HOST=0.0.0.0 PORT=4000
WORKDIR /app
COPY package.json LICENSE ./
COPY migrations migrations
COPY --from=dependencies /build/node_modules node_modules
# Optional for whoever installs the package, because they are larger than all of it: what exports traces.
COPY --from=build /build/node_modules/@opentelemetry node_modules/@opentelemetry
COPY --from=build /build/dist dist
# By number: Kubernetes' runAsNonRoot cannot know who a name is. 1000 is the user node of the base image.
USER 1000:1000
EXPOSE 4000
STOPSIGNAL SIGTERM
# Whether the process lives, and nothing else: a database that is away is no reason to restart it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PORT}/health`).then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# Node itself is process 1, so that SIGTERM reaches what drains the connections.
ENTRYPOINT ["node", "dist/cli/main.js"]
CMD ["start"]
