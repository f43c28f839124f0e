/* The protocols, and which of them a message is in. */
#include "protocol/protocols.h"

#include <strings.h>

/* One line a protocol. By content type or first bytes the first that fits is taken. */
static const crew_protocol *const protocols[] = {
    &crew_jsonrpc,
    &crew_jsonrpc1,
    &crew_msgpackrpc,
    NULL,
};

const crew_protocol *crew_protocol_at(size_t index)
{
    size_t i = 0;
    while (i < index && protocols[i])
        i++;
    return protocols[i];
}

const crew_protocol *crew_protocol_find(const char *name)
{
    for (size_t i = 0; protocols[i]; i++)
        if (strcmp(protocols[i]->name, name) == 0)
            return protocols[i];
    return NULL;
}

static bool means(const crew_protocol *protocol, const char *content_type)
{
    size_t size = strcspn(content_type, "; \t");
    for (const char *const *known = protocol->content_types; *known; known++)
        if (strlen(*known) == size && strncasecmp(*known, content_type, size) == 0)
            return true;
    return false;
}

const crew_protocol *crew_protocol_of(const char *content_type, crew_string bytes)
{
    for (size_t i = 0; content_type && protocols[i]; i++)
        if (means(protocols[i], content_type))
            return protocols[i];
    for (size_t i = 0; protocols[i]; i++)
        if (protocols[i]->sniff(bytes))
            return protocols[i];
    return NULL;
}

const char *crew_code_text(int64_t code)
{
    switch (code) {
    case CREW_CODE_PARSE_ERROR: return "Parse error";
    case CREW_CODE_INVALID_REQUEST: return "Invalid Request";
    case CREW_CODE_METHOD_NOT_FOUND: return "Method not found";
    case CREW_CODE_INVALID_PARAMS: return "Invalid params";
    case CREW_CODE_INTERNAL_ERROR: return "Internal error";
    case CREW_CODE_OVERLOADED: return "Overloaded";
    case CREW_CODE_REDELIVERED: return "Redelivered";
    case CREW_CODE_CANCELLED: return "Cancelled";
    case CREW_CODE_FORBIDDEN: return "Forbidden";
    default: return NULL;
    }
}
