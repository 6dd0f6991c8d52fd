# syntax=docker/dockerfile:1

# A static binary on nothing, run by nobody in particular:
#
#   docker build -t decree .
#   docker run --rm decree version
#
# It has no shell and no curl; its health check is the binary's own. .git is part of the
# context, so that the binary knows its version.

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags=-s -o /out/decree ./cmd/decree \
    && mkdir /out/data

FROM scratch
# For participants whose certificates are of public authorities.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/decree /decree
# A volume that is mounted here for the first time takes over the owner.
COPY --from=build --chown=65532:65532 /out/data /var/lib/decree
USER 65532:65532
VOLUME /var/lib/decree
ENV DECREE_DATA_DIR=/var/lib/decree
# gRPC, HTTP, and Raft between the nodes.
EXPOSE 7101 7201 7301
# A node begins to serve once it has heard of its peers.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 \
    CMD ["/decree", "health", "--endpoints", "127.0.0.1:7101", "--patience", "2s"]
ENTRYPOINT ["/decree"]
CMD ["server"]
