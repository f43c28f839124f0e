/* What goes beside a request. Names and values are such that HTTP and RabbitMQ carry them as they are. */
#include "client/client.h"

#include "core/utf8.h"
#include "core/value.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum { HEADERS_MOST = 32, BYTES_MOST = 2048, NAME_MOST = 128 };

/* A worker has a bound of its own, 30 s: what is about that is not worth a message, if nobody has asked for
 * it. */
enum { WORTH_FROM_MS = 27000, WORTH_TO_MS = 30000 };

/* RFC 9110, section 5.6.2: a token. */
static bool is_name(crew_string text)
{
    bool good = text.size > 0 && text.size <= NAME_MOST;
    for (size_t i = 0; good && i < text.size; i++) {
        char c = text.data[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        good = alnum || (c && strchr("!#$%&'*+-.^_`|~", c));
    }
    return good;
}

/* Those of the message itself, or of the connection; RabbitMQ takes CC and BCC for queues. */
static bool is_taken(crew_string name)
{
    static const char *const names[] = { "accept",     "bcc",       "cc",      "connection",        "expect",
                                         "host",       "te",        "trailer", "transfer-encoding", "upgrade",
                                         "user-agent", "keep-alive" };
    static const char *const prefixes[] = { "content-", "proxy-", "rpcrew-" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (name.size == strlen(names[i]) && strncasecmp(name.data, names[i], name.size) == 0)
            return true;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (name.size >= strlen(prefixes[i]) && strncasecmp(name.data, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_value(crew_string text)
{
    bool good = !text.size || (!is_blank(text.data[0]) && !is_blank(text.data[text.size - 1]));
    for (size_t i = 0; good && i < text.size; i++)
        good = ((unsigned char)text.data[i] >= ' ' && text.data[i] != 0x7F) || text.data[i] == '\t';
    return good && crew_utf8_valid(text);
}

/* Whether one of the first count has the same name, but for its letters' case. */
static bool is_there(const crew_value *headers, size_t count, crew_string name)
{
    for (size_t i = 0; i < count; i++) {
        crew_string other = { 0 };
        (void)!crew_value_string(crew_value_key_at(headers, i), &other);
        if (other.size == name.size && strncasecmp(other.data, name.data, name.size) == 0)
            return true;
    }
    return false;
}

crew_status crew_client_check_headers(const crew_client *client, const crew_value *headers, const char **what)
{
    size_t bytes = 0, count = crew_value_count(headers);
    *what = "headers do not travel there";
    const struct crew_endpoint *endpoint = &client->links[0].endpoint;
    if (!endpoint->ops->carries_headers && !endpoint->expects_ours)
        return CREW_UNSUPPORTED;
    *what = "headers are an object of strings";
    if (crew_value_type(headers) != CREW_TYPE_OBJECT)
        return CREW_BAD_ARGUMENT;
    *what = "more than 32 headers, or 2,048 bytes of them";
    if (count > HEADERS_MOST)
        return CREW_LIMIT;
    for (size_t i = 0; i < count; i++) {
        crew_string name, value;
        const char *wrong = NULL;
        if (crew_value_string(crew_value_key_at(headers, i), &name) != CREW_OK ||
            crew_value_string(crew_value_at(headers, i), &value) != CREW_OK)
            wrong = "headers are an object of strings";
        else if (!is_name(name))
            wrong = "a header's name is no token of HTTP's, or has more than 128 bytes";
        else if (is_taken(name))
            wrong = "a header has a name that the message itself uses";
        else if (is_there(headers, i, name))
            wrong = "a header is there twice";
        else if (!is_value(value))
            wrong = "a header's value is no UTF-8, has a control character, or begins or ends with a blank";
        if (wrong) {
            *what = wrong;
            return CREW_BAD_ARGUMENT;
        }
        bytes += name.size + value.size;
    }
    return bytes > BYTES_MOST ? CREW_LIMIT : CREW_OK;
}

/* rpc.with: what HTTP has in its fields and RabbitMQ in its headers, as a notification before the request. */
bool crew_client_write_with(const struct crew_endpoint *endpoint, crew_message *m)
{
    const crew_client *client = endpoint->options.context;
    crew_arena arena = { 0 };
    crew_value *params;
    const crew_value *left;
    int64_t left_ms = m->deadline_ms - crew_now_ms();
    crew_buffer_clear(&m->reply);
    bool is_worth_it =
        m->headers || endpoint->expects_ours || left_ms < WORTH_FROM_MS || left_ms > WORTH_TO_MS;
    if (!endpoint->says_with || !is_worth_it)
        return true;
    crew_status status = crew_object_new(&arena, &params);
    if (status == CREW_OK)
        status = crew_pack(&arena, &left, "I", left_ms > 0 ? left_ms : 0);
    if (status == CREW_OK)
        status = crew_object_append(&arena, params, crew_str("timeout_ms"), left);
    if (status == CREW_OK && m->headers)
        status = crew_object_append(&arena, params, crew_str("headers"), m->headers);
    if (status == CREW_OK)
        status = client->protocol->encode_call(crew_str("rpc.with"), params, 0, &m->reply);
    crew_arena_fini(&arena);
    return status == CREW_OK && !m->reply.failed;
}

/* Names in lower case, as HTTP's workers show them. */
crew_status crew_client_copy_headers(crew_arena *arena, const crew_value *headers, const crew_value **copy)
{
    crew_value *made;
    crew_status status = crew_object_new(arena, &made);
    for (size_t i = 0; status == CREW_OK && i < crew_value_count(headers); i++) {
        char lower[NAME_MOST];
        crew_string name = { 0 }, text = { 0 };
        const crew_value *value;
        (void)!crew_value_string(crew_value_key_at(headers, i), &name);
        (void)!crew_value_string(crew_value_at(headers, i), &text);
        for (size_t j = 0; j < name.size; j++)
            lower[j] = (char)tolower((unsigned char)name.data[j]);
        status = crew_pack(arena, &value, "S", text);
        if (status == CREW_OK)
            status = crew_object_append(arena, made, (crew_string){ lower, name.size }, value);
    }
    *copy = made;
    return status;
}
