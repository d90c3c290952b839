# docker build --build-arg VERSION=$(git describe --tags --always) --tag REGISTRY/sluice:TAG .

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.released=${VERSION}" -o /sluice ./cmd/sluice

# nftables is for the mode of that name. iptables brings both backends, for both IP families. kmod is for the legacy one: nothing else makes the kernel load it.
FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends iptables nftables kmod \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /sluice /usr/bin/sluice
ENTRYPOINT ["/usr/bin/sluice"]
