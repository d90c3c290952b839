# docker build --build-arg VERSION=v1.2.3 --tag REGISTRY/sluice:v1.2.3 .
# With buildx also --platform linux/amd64,linux/arm64: Go builds for both on whatever machine this is.

FROM --platform=$BUILDPLATFORM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION
ARG TARGETARCH
RUN GOARCH=${TARGETARCH} hack/build /out/sluice \
 && go run ./hack/sbom -version "${VERSION}" -bom /out/sbom.cdx.json -licences /out/licences.txt /out/sluice

# nftables is for the mode of that name. iptables brings both backends, for both IP families. kmod is for the legacy one: nothing else makes the kernel load it.
FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends iptables nftables kmod \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/sbom.cdx.json /out/licences.txt /usr/share/doc/sluice/
COPY --from=build /out/sluice /usr/bin/sluice
# A DaemonSet of kube-proxy needs another image then, and nothing else.
RUN ln -s /usr/bin/sluice /usr/local/bin/kube-proxy
ENTRYPOINT ["/usr/bin/sluice"]
