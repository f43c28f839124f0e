/* TLS under a stream: OpenSSL, behind this one file. Errors are told as the system calls of sockets tell
 * theirs. */
#ifndef TRANSPORT_TLS_H
#define TRANSPORT_TLS_H

#include <rpcrew/impl/transport.h>

#include <sys/types.h>

/* What an endpoint's connections have in common: certificates, and whom to trust. */
struct tls_context;

/* From the url's options; NULL with *why, CREW_BAD_ARGUMENT: a file cannot be read, or a key is not its
 * certificate's. */
struct tls_context *tls_worker_new(const crew_url *url, crew_error *why);
/* host: whose name the certificate must have. */
struct tls_context *tls_caller_new(const crew_url *url, const char *host, const char *alpn, crew_error *why);
/* NULL is fine. */
void tls_context_free(struct tls_context *context);

struct tls;
/* Over a socket that does not block, which stays the caller's; NULL without memory. A worker's has the files
 * as they are now, if they can be read. */
struct tls *tls_new(struct tls_context *context, int fd);
/* NULL is fine. */
void tls_free(struct tls *tls);

/* 1: the other end is known; 0: not yet (EAGAIN); -1: it will not be, for errno, EPROTO with tls_why. */
int tls_shake_hands(struct tls *tls);
bool tls_is_up(const struct tls *tls);
/* The same, until then, and no longer; while somebody wants the opening. *why has words. */
CREW_NODISCARD crew_status tls_connect(struct tls *tls, const crew_transport_config *config, int64_t until_ms,
                                       crew_error *why);

/* A connection to the url's host, as dial_tcp makes it, with TLS on it, which is the caller's. */
int tls_dial(const crew_transport_config *config, unsigned port, const char *alpn, struct tls **tls,
             crew_error *why);
/* What a url for TLS must have beside what its transport wants: CREW_BAD_ARGUMENT. */
CREW_NODISCARD crew_status tls_check(const crew_url *url, bool server, crew_error *why);
#define TLS_ALPN_HTTP "\x08http/1.1"

/* As recv and send: -1 with errno. What was written in part is kept, and counts as written: tls_sealed says
 * whether there is such, and tls_write with no bytes goes on with it. */
ssize_t tls_read(struct tls *tls, char *room, size_t size);
ssize_t tls_write(struct tls *tls, const char *bytes, size_t size);
bool tls_sealed(const struct tls *tls);
/* Says that nothing more will be written. */
void tls_shut(struct tls *tls);

/* Why it failed, in words; NULL: it did not, or errno says all. */
const char *tls_why(const struct tls *tls);
/* Whether it failed by what TLS says of the other end, or the other end of us: it was not just left. */
bool tls_was_refused(const struct tls *tls);
/* Who the other end is by its certificate, which was verified: its first DNS or mail name, else its common
 * name; false: it has shown none. */
bool tls_peer_name(const struct tls *tls, char *name, size_t room);

#define TLS_OPTIONS                                                                                   \
    { "certfile", NULL, 0, 0, "our certificate, with those between it and its authority (PEM)" },     \
        { "keyfile", NULL, 0, 0, "its key (PEM)" },                                                   \
        { "cacertfile", NULL, 0, 0, "certificates of the authorities to trust (PEM); the system's" }, \
        { "verify", "verify_peer|verify_none", 0, 0,                                                  \
          "whether the other end's certificate is checked; a worker asks for one then" },             \
        { "fail_if_no_peer_cert", "yes|no", 0, 0, "worker: no certificate is no connection" }

#endif
