#include "transport/cgi_request.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

/* The value of a variable, or NULL. */
static const char *variable(crew_string all, const char *name)
{
    for (size_t at = 0; at < all.size;) {
        const char *one = all.data + at, *value = one + strlen(one) + 1;
        if (strcmp(one, name) == 0)
            return value;
        at += strlen(one) + strlen(value) + 2;
    }
    return NULL;
}

static void add_field(struct http_message *m, const char *name, const char *value)
{
    for (; *name; name++) {
        char c = *name;
        if (c == '_')
            c = '-';
        else if (c >= 'A' && c <= 'Z')
            c = (char)(c | 0x20);
        crew_buffer_append(&m->head, &c, 1);
    }
    crew_buffer_append(&m->head, "", 1);
    crew_buffer_append(&m->head, value, strlen(value) + 1);
}

/* What the caller asked for: as it was sent, or else put together. */
static void write_target(struct http_message *m, crew_string all)
{
    static const char *const parts[] = { "SCRIPT_NAME", "PATH_INFO" };
    const char *uri = variable(all, "REQUEST_URI"), *query = variable(all, "QUERY_STRING");
    if (uri) {
        crew_buffer_text(&m->head, uri);
    } else {
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            if (variable(all, parts[i]))
                crew_buffer_text(&m->head, variable(all, parts[i]));
        if (query && *query) {
            crew_buffer_text(&m->head, "?");
            crew_buffer_text(&m->head, query);
        }
    }
    crew_buffer_append(&m->head, "", 1);
    m->fields = m->head.size;
}

static bool bad(struct http_message *m, const char *why)
{
    m->status = 400;
    m->why = why;
    return false;
}

bool cgi_read_request(struct http_message *m, crew_string all)
{
    const char *method = variable(all, "REQUEST_METHOD"), *type = variable(all, "CONTENT_TYPE");
    const char *length = variable(all, "CONTENT_LENGTH");
    char *end = NULL;
    static const char *const methods[] = { "GET", "HEAD", "POST", "OPTIONS" };
    m->begun = m->has_head = true;
    m->keeps_alive = true; /* which is the other server's affair */
    m->method = "another";
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (method && strcmp(method, methods[i]) == 0)
            m->method = methods[i];
    write_target(m, all);
    if (type && *type)
        add_field(m, "content-type", type);
    for (size_t at = 0; at < all.size;) {
        const char *one = all.data + at, *value = one + strlen(one) + 1;
        if (strncmp(one, "HTTP_", 5) == 0)
            add_field(m, one + 5, value);
        at += strlen(one) + strlen(value) + 2;
    }
    errno = 0;
    m->length = length && *length ? strtoull(length, &end, 10) : UINT64_MAX; /* not said */
    if (errno == ERANGE)
        m->length = UINT64_MAX - 1;                          /* more than anybody may send */
    m->chunked = !end && http_field(m, "transfer-encoding"); /* which is no more, but has no length either */
    if (m->head.failed)
        return false;
    if (!method)
        return bad(m, "no REQUEST_METHOD");
    return !end || (!*end && isdigit((unsigned char)*length)) || bad(m, "a CONTENT_LENGTH that is no number");
}
