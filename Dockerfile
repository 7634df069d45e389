# syntax=docker/dockerfile:1.7
# The one binary with what it is linked to, and nothing else.
#   docker build --tag clew .

FROM rust:1.90-bookworm AS build
WORKDIR /src
ENV CARGO_TARGET_DIR=/target
COPY . .
# As on any machine: what is missing gets installed, then cargo builds with the lock file.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target \
    make release && deploy/image/rootfs /target/release/clew /rootfs

FROM scratch
LABEL org.opencontainers.image.title="Clew" \
      org.opencontainers.image.description="A horizontally scaled trace store and query cluster" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /rootfs /
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
WORKDIR /var/lib/clew
EXPOSE 3200 4317 4318 9095
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s CMD ["/usr/bin/clew", "health"]
ENTRYPOINT ["/usr/bin/clew"]
CMD ["serve", "--data-dir=/var/lib/clew"]
