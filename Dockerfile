# The workers and the command line. The build is ./dev's; what runs needs only the libraries.
FROM debian:13 AS build
WORKDIR /rpcrew
COPY . .
RUN ./dev build

FROM debian:13-slim
RUN apt-get update -qq && \
    apt-get install -y -qq --no-install-recommends \
        libgcrypt20 libhttp-parser2.9 libjansson4 libmsgpack-c2 librabbitmq4 libssl3t64 libwslay1 libzmq5 ca-certificates && \
    rm -rf /var/lib/apt/lists/*
COPY --from=build /rpcrew/build/release/bin/rpcrew /rpcrew/build/release/bin/calc /rpcrew/build/release/bin/digest /usr/local/bin/
USER nobody
# Workers drain on SIGTERM, which is what docker stop sends.
CMD ["rpcrew", "--help"]
