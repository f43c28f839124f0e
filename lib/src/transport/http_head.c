#include "transport/http_head.h"

#include "core/base64.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BEARER_MOST = 16 << 10 };

static void write_escaped(const char *text, const char *also, crew_buffer *out)
{
    for (; *text; text++) {
        char c = *text;
        bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                     strchr("-._~!$&'()*+,;=:@/", c) || strchr(also, c);
        if (plain)
            crew_buffer_append(out, text, 1);
        else
            crew_buffer_printf(out, "%%%02X", (unsigned char)c);
    }
}

static crew_status write_bearer(const crew_url *url, const char *path, crew_buffer *out, crew_error *why)
{
    char token[BEARER_MOST + 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, token, sizeof token);
    int error = errno;
    if (fd >= 0)
        close(fd);
    while (size > 0 && strchr(" \t\r\n", token[size - 1]))
        size--;
    if (size <= 0 || size > BEARER_MOST)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': bearer_file '%s': %s", crew_url_text(url),
                              path,
                              size < 0   ? strerror(error)
                              : size > 0 ? "it is too long"
                                         : "it is empty");
    for (ssize_t i = 0; i < size; i++)
        if ((unsigned char)token[i] <= ' ' || token[i] == 127)
            return crew_error_set(why, CREW_BAD_ARGUMENT, "URL '%s': bearer_file '%s' has more than a token",
                                  crew_url_text(url), path);
    crew_buffer_text(out, "Authorization: Bearer ");
    crew_buffer_append(out, token, (size_t)size);
    crew_buffer_text(out, "\r\n");
    return CREW_OK;
}

bool http_credentials_changed(const crew_url *url, struct timespec *when)
{
    const char *path = crew_url_option(url, "bearer_file");
    struct stat file;
    bool known = path && stat(path, &file) == 0 && S_ISREG(file.st_mode);
    *when = known ? file.st_mtim : (struct timespec){ 0 };
    return known;
}

bool http_is_secure(const crew_url *url)
{
    const char *scheme = crew_url_scheme(url);
    return strcmp(scheme, "https") == 0 || strcmp(scheme, "wss") == 0;
}

static unsigned default_port(const crew_url *url)
{
    return http_is_secure(url) ? 443 : 80;
}

unsigned http_port(const crew_url *url, size_t host)
{
    unsigned port = crew_url_port(url, host);
    return port ? port : default_port(url);
}

void http_write_head(const crew_url *url, size_t host, crew_buffer *out)
{
    const char *name = crew_url_host(url, host), *path = crew_url_path(url);
    const char *query = crew_url_option(url, "query");
    unsigned port = http_port(url, host);
    crew_buffer_text(out, " ");
    write_escaped(*path ? path : "/", "", out);
    if (query) {
        crew_buffer_text(out, "?");
        write_escaped(query, "?%", out);
    }
    crew_buffer_printf(out, strchr(name, ':') ? " HTTP/1.1\r\nHost: [%s]" : " HTTP/1.1\r\nHost: %s", name);
    if (port != default_port(url))
        crew_buffer_printf(out, ":%u", port);
    crew_buffer_text(out, "\r\nUser-Agent: rpcrew\r\n");
}

crew_status http_write_credentials(const crew_url *url, crew_buffer *out, crew_error *why)
{
    const char *bearer = crew_url_option(url, "bearer_file");
    crew_status status = CREW_OK;
    if (crew_url_user(url)) {
        crew_buffer pair = { 0 };
        const char *password = crew_url_password(url);
        crew_buffer_printf(&pair, "%s:%s", crew_url_user(url), password ? password : "");
        crew_buffer_text(out, "Authorization: Basic ");
        crew_base64_encode(crew_buffer_string(&pair), out);
        crew_buffer_text(out, "\r\n");
        out->failed = out->failed || pair.failed;
        crew_buffer_fini(&pair);
    } else if (bearer) {
        status = write_bearer(url, bearer, out, why);
    }
    return status == CREW_OK && out->failed ? crew_error_set(why, CREW_NO_MEMORY, "no memory") : status;
}
