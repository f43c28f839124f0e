/* A record that the socket took in part is OpenSSL's to finish, with the same bytes: they are kept here,
 * since a caller may take back what it has not written. */
#include "transport/tls.h"

#include "transport/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <rpcrew/log.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RECORD_MOST = 16 << 10, LOOK_AGAIN_MS = 1000, WORDS_MOST = 200, WORD_MS = 50 };

enum { CERT, KEY, CA, FILES };
static const char *const file_options[FILES] = { "certfile", "keyfile", "cacertfile" };

struct tls_context {
    SSL_CTX *context;
    const crew_url *url; /* borrowed */
    bool worker;
    char host[256];
    const char *alpn;               /* what a caller offers; NULL: nothing */
    struct timespec changed[FILES]; /* the files, when they were read */
    int64_t looked_at_ms;
};

struct tls {
    SSL *ssl;
    int fd;
    char *sealed; /* bytes that OpenSSL has and the socket has not; NULL: none */
    size_t sealed_size;
    bool failed;
    bool asked;   /* for our certificate */
    bool refused; /* by either end's rules */
    char why[WORDS_MOST];
};

/* ---- contexts ---- */

static crew_status bad_file(const crew_url *url, int file, crew_error *why)
{
    const char *path = crew_url_option(url, file_options[file]);
    unsigned long first = ERR_peek_error();
    unsigned long code = ERR_SYSTEM_ERROR(first) ? first : ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(code);
    crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': %s '%s': %s", crew_url_text(url), file_options[file],
                   path ? path : "",
                   ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code))
                   : reason               ? reason
                                          : "it is no PEM file");
    ERR_clear_error();
    return CREW_BAD_ARGUMENT;
}

static crew_status load_files(SSL_CTX *context, const crew_url *url, bool trusts, crew_error *why)
{
    const char *cert = crew_url_option(url, "certfile"), *key = crew_url_option(url, "keyfile");
    const char *ca = crew_url_option(url, "cacertfile");
    ERR_clear_error();
    if (cert && SSL_CTX_use_certificate_chain_file(context, cert) != 1)
        return bad_file(url, CERT, why);
    if (cert && SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) != 1)
        return bad_file(url, KEY, why);
    if (ca && SSL_CTX_load_verify_file(context, ca) != 1)
        return bad_file(url, CA, why);
    if (ca)
        SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(ca));
    if (!ca && trusts && SSL_CTX_set_default_verify_paths(context) != 1)
        return crew_error_set(why, CREW_SYSTEM, "no certificates of authorities can be read");
    return CREW_OK;
}

static int choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *size, const unsigned char *offered,
                       unsigned offered_size, void *mine)
{
    static const unsigned char known[] = "\x08http/1.1";
    unsigned char *chosen;
    (void)ssl;
    (void)mine;
    int how = SSL_select_next_proto(&chosen, size, known, sizeof known - 1, offered, offered_size);
    *out = chosen;
    return how == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

/* Nobody is there to be asked. */
/* NOLINTNEXTLINE(readability-non-const-parameter): OpenSSL's */
static int no_passphrase(char *room, int size, int writes, void *mine)
{
    (void)room;
    (void)size;
    (void)writes;
    (void)mine;
    return 0;
}

/* The worker wants to know who we are; it has said whether that will do only some time after we are through.
 */
static int on_request(SSL *ssl, void *mine)
{
    struct tls *tls = BIO_get_data(SSL_get_rbio(ssl));
    (void)mine;
    tls->asked = true;
    return 1;
}

static SSL_CTX *new_context(const struct tls_context *c, crew_error *why)
{
    const crew_url *url = c->url;
    bool verifies = c->worker ? crew_url_option_is(url, "verify", "verify_peer")
                              : !crew_url_option_is(url, "verify", "verify_none");
    bool demands = crew_url_option_is(url, "fail_if_no_peer_cert", "yes");
    SSL_CTX *context = SSL_CTX_new(c->worker ? TLS_server_method() : TLS_client_method());
    if (!context || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1) {
        SSL_CTX_free(context);
        crew_error_set(why, CREW_NO_MEMORY, "no memory");
        return NULL;
    }
    (void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                        SSL_MODE_RELEASE_BUFFERS);
    (void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    if (c->worker) /* a request tells itself where it ends; an answer may not */
        (void)SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_default_passwd_cb(context, no_passphrase);
    SSL_CTX_set_verify(context,
                       !verifies ? SSL_VERIFY_NONE
                       : demands ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
                                 : SSL_VERIFY_PEER,
                       NULL);
    if (c->worker) {
        (void)SSL_CTX_set_session_id_context(context, (const unsigned char *)"rpcrew", 6);
        SSL_CTX_set_alpn_select_cb(context, choose_alpn, NULL);
    } else {
        SSL_CTX_set_cert_cb(context, on_request, NULL);
        if (c->alpn)
            (void)SSL_CTX_set_alpn_protos(context, (const unsigned char *)c->alpn, (unsigned)strlen(c->alpn));
    }
    if (load_files(context, url, verifies, why) == CREW_OK)
        return context;
    SSL_CTX_free(context);
    return NULL;
}

/* When the files were last changed. */
static void look(const struct tls_context *c, struct timespec changed[FILES])
{
    for (int i = 0; i < FILES; i++) {
        struct stat file;
        const char *path = crew_url_option(c->url, file_options[i]);
        changed[i] = path && stat(path, &file) == 0 ? file.st_mtim : (struct timespec){ 0 };
    }
}

static struct tls_context *make(const struct tls_context *like, crew_error *why)
{
    struct tls_context *c = malloc(sizeof *c);
    if (!c) {
        crew_error_set(why, CREW_NO_MEMORY, "no memory");
        return NULL;
    }
    *c = *like;
    look(c, c->changed);
    c->context = new_context(c, why);
    if (c->context)
        return c;
    free(c);
    return NULL;
}

struct tls_context *tls_worker_new(const crew_url *url, crew_error *why)
{
    return make(&(struct tls_context){ .url = url, .worker = true, .looked_at_ms = crew_now_ms() }, why);
}

struct tls_context *tls_caller_new(const crew_url *url, const char *host, const char *alpn, crew_error *why)
{
    struct tls_context like = { .url = url, .alpn = alpn, .looked_at_ms = crew_now_ms() };
    (void)snprintf(like.host, sizeof like.host, "%s", host);
    return make(&like, why);
}

void tls_context_free(struct tls_context *context)
{
    if (context)
        SSL_CTX_free(context->context);
    free(context);
}

/* Certificates are renewed while they are in use; what cannot be read leaves those that there are. */
static void refresh(struct tls_context *c)
{
    struct timespec now[FILES];
    crew_error why;
    if (crew_now_ms() - c->looked_at_ms < LOOK_AGAIN_MS)
        return;
    c->looked_at_ms = crew_now_ms();
    look(c, now);
    if (memcmp(now, c->changed, sizeof now) == 0)
        return;
    SSL_CTX *context = new_context(c, &why);
    memcpy(c->changed, now, sizeof now);
    if (!context) {
        crew_log(CREW_LOG_WARN, "certificates have changed and cannot be read; the old ones stay",
                 "{s:s,s:s}", "endpoint", crew_url_text(c->url), "why", why.message);
        return;
    }
    SSL_CTX_free(c->context);
    c->context = context;
    crew_log(CREW_LOG_INFO, "certificates were read again", "{s:s}", "endpoint", crew_url_text(c->url));
}

/* ---- sockets, for OpenSSL, whose own would raise SIGPIPE ---- */

static const struct tls *tls_of(BIO *bio)
{
    return BIO_get_data(bio);
}

static int conclude(BIO *bio, ssize_t count, int again)
{
    BIO_clear_retry_flags(bio);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_flags(bio, BIO_FLAGS_SHOULD_RETRY | again);
    return (int)count;
}

static int on_write(BIO *bio, const char *bytes, int size)
{
    return conclude(bio, send(tls_of(bio)->fd, bytes, (size_t)size, MSG_DONTWAIT | MSG_NOSIGNAL),
                    BIO_FLAGS_WRITE);
}

static int on_read(BIO *bio, char *room, int size)
{
    ssize_t count = recv(tls_of(bio)->fd, room, (size_t)size, MSG_DONTWAIT);
    if (count == 0)
        BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
    return conclude(bio, count, BIO_FLAGS_READ);
}

static long on_control(BIO *bio, int what, long number, void *pointer)
{
    (void)number;
    (void)pointer;
    if (what == BIO_CTRL_EOF)
        return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
    return what == BIO_CTRL_FLUSH;
}

static BIO_METHOD *method;

static void make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket");
    if (!method || BIO_meth_set_write(method, on_write) != 1 || BIO_meth_set_read(method, on_read) != 1 ||
        BIO_meth_set_ctrl(method, on_control) != 1) {
        BIO_meth_free(method);
        method = NULL;
    }
}

static BIO *new_bio(struct tls *tls)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, make_method);
    BIO *bio = method ? BIO_new(method) : NULL;
    if (bio) {
        BIO_set_data(bio, tls);
        BIO_set_init(bio, 1);
    }
    return bio;
}

/* ---- connections ---- */

static bool is_address(const char *host)
{
    struct in6_addr address;
    return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
}

static bool expect(SSL *ssl, char *host)
{
    if (is_address(host))
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

struct tls *tls_new(struct tls_context *c, int fd)
{
    refresh(c);
    struct tls *tls = calloc(1, sizeof *tls);
    if (tls)
        tls->ssl = SSL_new(c->context);
    BIO *bio = tls && tls->ssl ? new_bio(tls) : NULL;
    if (!bio || (!c->worker && !expect(tls->ssl, c->host))) {
        BIO_free(bio);
        tls_free(tls);
        return NULL;
    }
    tls->fd = fd;
    SSL_set_bio(tls->ssl, bio, bio);
    if (c->worker)
        SSL_set_accept_state(tls->ssl);
    else
        SSL_set_connect_state(tls->ssl);
    return tls;
}

void tls_free(struct tls *tls)
{
    if (!tls)
        return;
    SSL_free(tls->ssl);
    free(tls->sealed);
    free(tls);
}

/* What OpenSSL says as errno; the words beside it. */
static int explain(struct tls *tls, int result)
{
    int error = errno;
    int kind = SSL_get_error(tls->ssl, result);
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE)
        return EAGAIN;
    tls->failed = true;
    tls->refused = kind == SSL_ERROR_SSL;
    unsigned long code = ERR_peek_last_error();
    long verified = SSL_get_verify_result(tls->ssl);
    const char *reason = ERR_reason_error_string(code);
    if (verified != X509_V_OK && SSL_get_verify_mode(tls->ssl) != SSL_VERIFY_NONE)
        (void)snprintf(tls->why, sizeof tls->why, "the other end's certificate: %s",
                       X509_verify_cert_error_string(verified));
    else if (kind == SSL_ERROR_SSL && reason)
        (void)snprintf(tls->why, sizeof tls->why, "TLS: %s", reason);
    else if (kind == SSL_ERROR_SYSCALL && error)
        return error;
    else
        (void)snprintf(tls->why, sizeof tls->why, "TLS: the other end closed the connection");
    return EPROTO;
}

int tls_shake_hands(struct tls *tls)
{
    ERR_clear_error();
    errno = 0;
    int result = SSL_do_handshake(tls->ssl);
    if (result == 1)
        return 1;
    errno = explain(tls, result);
    return errno == EAGAIN ? 0 : -1;
}

bool tls_is_up(const struct tls *tls)
{
    return SSL_is_init_finished(tls->ssl);
}

bool tls_was_refused(const struct tls *tls)
{
    return tls->refused;
}

/* Whether it is our certificate, or that there is none, that the other end does not like. */
static bool dislikes_us(const struct tls *tls)
{
    static const int alerts[] = { SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED,
                                  SSL_R_TLSV1_ALERT_ACCESS_DENIED,
                                  SSL_R_TLSV1_ALERT_UNKNOWN_CA,
                                  SSL_R_SSLV3_ALERT_BAD_CERTIFICATE,
                                  SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED,
                                  SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED,
                                  SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN,
                                  SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE };
    unsigned long code = ERR_peek_last_error();
    bool has_none =
        tls->asked && !SSL_get_certificate(tls->ssl); /* before TLS 1.3 there is no word for that */
    if (has_none && ERR_GET_LIB(code) == ERR_LIB_SSL &&
        ERR_GET_REASON(code) == SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE)
        return true;
    for (size_t i = 0; i < sizeof alerts / sizeof *alerts; i++)
        if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == alerts[i])
            return true;
    return false;
}

static crew_status refused(const struct tls *tls, const char *url, crew_error *why)
{
    bool wants_another = SSL_get_verify_result(tls->ssl) != X509_V_OK || dislikes_us(tls);
    return crew_error_set(why, wants_another ? CREW_BAD_ARGUMENT : CREW_NO_SERVICE, "%s: %s", url,
                          tls_why(tls) ? tls_why(tls) : strerror(errno));
}

/* In TLS 1.3 a caller is through before the worker has looked at its certificate: its word on that is waited
 * for, about as long as it should take to come. Most send a ticket then; of those that send nothing it costs
 * that. */
static crew_status await_word(struct tls *tls, const char *url, int64_t until_ms, crew_error *why)
{
    struct pollfd item = { .fd = tls->fd, .events = POLLIN };
    struct tcp_info info = { .tcpi_rtt = 0 };
    socklen_t size = sizeof info;
    char byte;
    size_t count;
    if (!tls->asked || SSL_version(tls->ssl) < TLS1_3_VERSION)
        return CREW_OK;
    (void)getsockopt(tls->fd, IPPROTO_TCP, TCP_INFO, &info, &size);
    int64_t left_ms = until_ms - crew_now_ms(), wait_ms = WORD_MS + 4 * (int64_t)info.tcpi_rtt / 1000;
    if (wait_ms > left_ms)
        wait_ms = left_ms > 0 ? left_ms : 0;
    if (poll(&item, 1, (int)wait_ms) <= 0)
        return CREW_OK;
    ERR_clear_error();
    errno = 0;
    int result = SSL_peek_ex(tls->ssl, &byte, 1, &count);
    if (result == 1 || explain(tls, result) == EAGAIN) /* something else, which was none against us */
        return CREW_OK;
    return refused(tls, url, why);
}

crew_status tls_connect(struct tls *tls, const crew_transport_config *config, int64_t until_ms,
                        crew_error *why)
{
    const char *url = crew_url_text(config->url);
    for (int how; (how = tls_shake_hands(tls)) != 1;) {
        struct pollfd item = { .fd = tls->fd, .events = SSL_want_write(tls->ssl) ? POLLOUT : POLLIN };
        int64_t left = until_ms - crew_now_ms();
        if (how < 0)
            return refused(tls, url, why);
        if (left <= 0 || poll(&item, 1, (int)left) == 0)
            return crew_error_set(why, CREW_NO_SERVICE, "%s: TLS took too long", url);
    }
    return await_word(tls, url, until_ms, why);
}

int tls_dial(const crew_transport_config *config, unsigned port, const char *alpn, struct tls **out,
             crew_error *why)
{
    const char *host = crew_url_host(config->url, config->host);
    int64_t until_ms = crew_now_ms() + config->connect_timeout_ms;
    struct tls_context *context = tls_caller_new(config->url, host, alpn, why);
    crew_status status = CREW_OK;
    if (!context)
        return -1;
    int fd = proxy_dial(config, port, why);
    struct tls *tls = fd < 0 ? NULL : tls_new(context, fd);
    if (tls)
        status = tls_connect(tls, config, until_ms, why);
    else if (fd >= 0)
        status = crew_error_set(why, CREW_NO_MEMORY, "no memory");
    tls_context_free(context); /* the connection has a hold of what it needs */
    if (fd < 0 || status == CREW_OK) {
        *out = tls;
        return fd;
    }
    tls_free(tls);
    (void)crew_opening_waits_for(config->opening, -1);
    close(fd);
    return -1;
}

crew_status tls_check(const crew_url *url, bool server, crew_error *why)
{
    const char *shown = crew_url_text(url);
    bool cert = crew_url_option(url, "certfile"), key = crew_url_option(url, "keyfile");
    if (server && (!cert || !key))
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': a worker wants certfile and keyfile", shown);
    if (cert != key)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': certfile and keyfile go together", shown);
    if (server && crew_url_option_is(url, "verify", "verify_peer") && !crew_url_option(url, "cacertfile"))
        return crew_error_set(
            why, CREW_BAD_ARGUMENT,
            "URL '%s': verify=verify_peer wants cacertfile: whose callers are to be trusted", shown);
    if (server && crew_url_option_is(url, "fail_if_no_peer_cert", "yes") &&
        !crew_url_option_is(url, "verify", "verify_peer"))
        return crew_error_set(why, CREW_BAD_ARGUMENT,
                              "URL '%s': fail_if_no_peer_cert wants verify=verify_peer", shown);
    return CREW_OK;
}

ssize_t tls_read(struct tls *tls, char *room, size_t size)
{
    size_t count = 0;
    ERR_clear_error();
    errno = 0;
    int result = SSL_read_ex(tls->ssl, room, size, &count);
    if (result == 1)
        return (ssize_t)count;
    if (SSL_get_error(tls->ssl, result) == SSL_ERROR_ZERO_RETURN)
        return 0;
    errno = explain(tls, result);
    return -1;
}

/* -1: not now, or never again. */
static ssize_t write_record(struct tls *tls, const char *bytes, size_t size)
{
    size_t count = 0;
    ERR_clear_error();
    errno = 0;
    int result = SSL_write_ex(tls->ssl, bytes, size, &count);
    if (result == 1)
        return (ssize_t)count;
    errno = explain(tls, result);
    return -1;
}

static void unseal(struct tls *tls)
{
    free(tls->sealed);
    tls->sealed = NULL;
}

ssize_t tls_write(struct tls *tls, const char *bytes, size_t size)
{
    if (tls->sealed) {
        if (write_record(tls, tls->sealed, tls->sealed_size) < 0)
            return -1;
        unseal(tls);
    }
    if (!size)
        return 0;
    if (size > RECORD_MOST)
        size = RECORD_MOST;
    ssize_t count = write_record(tls, bytes, size);
    bool is_kept = count < 0 && errno == EAGAIN && !SSL_in_init(tls->ssl) && SSL_want_write(tls->ssl);
    if (!is_kept)
        return count;
    tls->sealed = malloc(size);
    if (!tls->sealed) {
        tls->failed = true;
        errno = ENOMEM;
        return -1;
    }
    memcpy(tls->sealed, bytes, size);
    tls->sealed_size = size;
    return (ssize_t)size;
}

bool tls_sealed(const struct tls *tls)
{
    return tls->sealed != NULL;
}

void tls_shut(struct tls *tls)
{
    ERR_clear_error();
    if (!tls->failed && !SSL_in_init(tls->ssl))
        (void)SSL_shutdown(tls->ssl);
    ERR_clear_error();
}

const char *tls_why(const struct tls *tls)
{
    return *tls->why ? tls->why : NULL;
}

/* ---- who it is ---- */

static bool copy_name(const ASN1_STRING *text, char *name, size_t room)
{
    unsigned char *utf8 = NULL;
    int size = ASN1_STRING_to_UTF8(&utf8, text);
    bool fits = size > 0 && (size_t)size < room && !memchr(utf8, '\0', (size_t)size);
    if (fits) {
        memcpy(name, utf8, (size_t)size);
        name[size] = '\0';
    }
    OPENSSL_free(utf8);
    return fits;
}

static bool alternative_name(const X509 *certificate, char *name, size_t room)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    bool found = false;
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found; i++) {
        const GENERAL_NAME *one = sk_GENERAL_NAME_value(names, i);
        if (one->type == GEN_DNS || one->type == GEN_EMAIL)
            found = copy_name(one->d.ia5, name, room);
    }
    GENERAL_NAMES_free(names);
    return found;
}

bool tls_peer_name(const struct tls *tls, char *name, size_t room)
{
    X509 *certificate = SSL_get1_peer_certificate(tls->ssl);
    if (!certificate)
        return false;
    bool found =
        SSL_get_verify_mode(tls->ssl) != SSL_VERIFY_NONE && SSL_get_verify_result(tls->ssl) == X509_V_OK;
    if (found && !alternative_name(certificate, name, room)) {
        const X509_NAME *subject = X509_get_subject_name(certificate);
        int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
        found = at >= 0 && copy_name(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)), name, room);
    }
    X509_free(certificate);
    return found;
}
