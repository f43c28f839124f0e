/* What goes beside a request. Names and values are such that HTTP carries them, whatever does. */
#include "client/client.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { HEADERS_MOST = 32, BYTES_MOST = 2048 };

/* RFC 9110, section 5.6.2: a token. */
static bool is_name(crew_string text)
{
    bool good = text.size > 0;
    for (size_t i = 0; good && i < text.size; i++) {
        char c = text.data[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        good = alnum || (c && strchr("!#$%&'*+-.^_`|~", c));
    }
    return good;
}

/* Those of the message itself, or of the connection. */
static bool is_taken(crew_string name)
{
    static const char *const names[] = { "accept",     "connection", "expect",  "host",
                                         "keep-alive", "te",         "trailer", "transfer-encoding",
                                         "upgrade",    "user-agent" };
    static const char *const prefixes[] = { "content-", "proxy-", "rpcrew-" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (name.size == strlen(names[i]) && strncasecmp(name.data, names[i], name.size) == 0)
            return true;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (name.size >= strlen(prefixes[i]) && strncasecmp(name.data, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

static bool is_value(crew_string text)
{
    bool good = true;
    for (size_t i = 0; good && i < text.size; i++)
        good = ((unsigned char)text.data[i] >= ' ' && text.data[i] != 0x7F) || text.data[i] == '\t';
    return good;
}

crew_status crew_client_check_headers(const crew_client *client, const crew_value *headers, const char **what)
{
    size_t bytes = 0, count = crew_value_count(headers);
    *what = "headers do not travel there";
    if (!client->links[0].endpoint.ops->carries_headers)
        return CREW_UNSUPPORTED;
    *what = "headers are an object of strings";
    if (crew_value_type(headers) != CREW_TYPE_OBJECT)
        return CREW_BAD_ARGUMENT;
    for (size_t i = 0; i < count; i++) {
        crew_string name, value;
        if (crew_value_string(crew_value_key_at(headers, i), &name) != CREW_OK ||
            crew_value_string(crew_value_at(headers, i), &value) != CREW_OK)
            return CREW_BAD_ARGUMENT;
        *what = !is_name(name)    ? "a header's name is no token of HTTP's"
                : is_taken(name)  ? "a header has a name that the message itself uses"
                : is_value(value) ? *what
                                  : "a header's value has a control character";
        if (!is_name(name) || is_taken(name) || !is_value(value))
            return CREW_BAD_ARGUMENT;
        bytes += name.size + value.size;
    }
    *what = "more than 32 headers, or 2,048 bytes of them";
    return count > HEADERS_MOST || bytes > BYTES_MOST ? CREW_LIMIT : CREW_OK;
}
