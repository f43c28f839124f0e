/* The methods that every service has: rpc.discover, an OpenRPC document (spec.open-rpc.org, 1.3) made from
 * the method tables, and rpc.ping. */
#include "service/discover.h"

#include "core/value.h"
#include "service/table.h"

static crew_status base_schema(crew_arena *arena, crew_param_type type, const crew_value **schema)
{
    switch (type) {
    case CREW_PARAM_BOOL: return crew_pack(arena, schema, "{s:s}", "type", "boolean");
    case CREW_PARAM_INT: return crew_pack(arena, schema, "{s:s}", "type", "integer");
    case CREW_PARAM_UINT: return crew_pack(arena, schema, "{s:s,s:i}", "type", "integer", "minimum", 0);
    case CREW_PARAM_BYTES:
        return crew_pack(arena, schema, "{s:s,s:s}", "type", "string", "contentEncoding", "base64");
    case CREW_PARAM_NUMBER:
    case CREW_PARAM_STRING:
    case CREW_PARAM_ARRAY:
    case CREW_PARAM_OBJECT:
        return crew_pack(arena, schema, "{s:s}", "type",
                         crew_declared_name(&(struct crew_declared){ .type = type }));
    default: return crew_pack(arena, schema, "{}");
    }
}

/* A declared type as JSON Schema; one of the service's own has its name as the title. */
static crew_status schema_of(crew_arena *arena, const struct crew_declared *declared,
                             const crew_value **schema)
{
    const crew_custom_type *custom = declared->custom;
    const crew_value *base = NULL, *text = NULL;
    crew_value *made = NULL;
    crew_status status = base_schema(arena, declared->type, &base);
    if (status != CREW_OK || !custom) {
        *schema = base;
        return status;
    }
    status = crew_pack(arena, &text, "s", custom->name);
    if (status == CREW_OK)
        status = crew_object_new(arena, &made);
    if (status == CREW_OK)
        status = crew_object_add(arena, made, crew_str("title"), text);
    for (size_t i = 0; i < crew_value_count(base) && status == CREW_OK; i++)
        status =
            crew_object_add(arena, made, crew_text_of(crew_value_key_at(base, i)), crew_value_at(base, i));
    if (status == CREW_OK && custom->format)
        status = crew_pack(arena, &text, "s", custom->format);
    if (status == CREW_OK && custom->format)
        status = crew_object_add(arena, made, crew_str("format"), text);
    *schema = made;
    return status;
}

static crew_status with_default(crew_arena *arena, const crew_value *fallback, const crew_value **schema)
{
    crew_value *made;
    crew_status status = crew_object_new(arena, &made);
    for (size_t i = 0; i < crew_value_count(*schema) && status == CREW_OK; i++)
        status = crew_object_add(arena, made, crew_text_of(crew_value_key_at(*schema, i)),
                                 crew_value_at(*schema, i));
    if (status == CREW_OK)
        status = crew_object_add(arena, made, crew_str("default"), fallback);
    *schema = made;
    return status;
}

/* A variadic param is an array of its values, as it is when given by name; x-variadic says so. */
static crew_status describe_param(crew_arena *arena, const struct crew_param *param, crew_value *params)
{
    const crew_value *schema, *described;
    crew_status status = schema_of(arena, &param->declared, &schema);
    if (status == CREW_OK && param->fallback)
        status = with_default(arena, param->fallback, &schema);
    if (status == CREW_OK && param->variadic)
        status = crew_pack(arena, &described, "{s:S,s:b,s:{s:s,s:o},s:b}", "name", param->name, "required", 0,
                           "schema", "type", "array", "items", schema, "x-variadic", 1);
    else if (status == CREW_OK)
        status = crew_pack(arena, &described, "{s:S,s:b,s:o}", "name", param->name, "required",
                           !param->optional, "schema", schema);
    return status == CREW_OK ? crew_array_add(arena, params, described) : status;
}

static crew_status refer_to_errors(crew_arena *arena, const struct crew_entry *entry, crew_value **errors)
{
    crew_status status = crew_array_new(arena, errors);
    const crew_service_error *row = entry->errors;
    for (; row && row->name && status == CREW_OK; row++) {
        const crew_value *reference;
        crew_buffer pointer = { 0 };
        crew_string key = crew_error_key(arena, entry, row);
        if (!key.data)
            return CREW_NO_MEMORY;
        crew_buffer_printf(&pointer, "#/components/errors/%s", key.data);
        crew_string text = crew_buffer_move(&pointer, arena);
        status = text.data ? crew_pack(arena, &reference, "{s:S}", "$ref", text) : CREW_NO_MEMORY;
        if (status == CREW_OK)
            status = crew_array_add(arena, *errors, reference);
    }
    return status;
}

/* Whether both are of one service under one prefix; such entries follow one another. */
static bool same_errors(const struct crew_entry *a, const struct crew_entry *b)
{
    return a && a->service == b->service && a->prefix_size == b->prefix_size &&
           memcmp(a->name.data, b->name.data, b->prefix_size) == 0;
}

static crew_status describe_errors(crew_arena *arena, const struct crew_entry *entry, crew_value *errors)
{
    crew_status status = CREW_OK;
    const crew_service_error *row = entry->errors;
    for (; row && row->name && status == CREW_OK; row++) {
        const crew_value *described;
        crew_string key = crew_error_key(arena, entry, row);
        status = key.data
                     ? crew_pack(arena, &described, "{s:I,s:s}", "code", row->code, "message", row->message)
                     : CREW_NO_MEMORY;
        if (status == CREW_OK)
            status = crew_object_add(arena, errors, key, described);
    }
    return status;
}

static crew_status describe_method(crew_arena *arena, const struct crew_entry *entry, crew_value *methods)
{
    crew_value *params, *errors;
    const crew_value *result, *described;
    size_t count = entry->signature.count;
    bool variadic = count && entry->signature.params[count - 1].variadic; /* no array, if by position */
    crew_status status = crew_array_new(arena, &params);
    for (size_t i = 0; i < count && status == CREW_OK; i++)
        status = describe_param(arena, &entry->signature.params[i], params);
    if (status == CREW_OK && entry->returns_null)
        status = crew_pack(arena, &result, "{s:s}", "type", "null");
    else if (status == CREW_OK)
        status = schema_of(arena, &entry->result, &result);
    if (status == CREW_OK)
        status = refer_to_errors(arena, entry, &errors);
    if (status == CREW_OK)
        status = crew_pack(arena, &described, "{s:S,s:s,s:s,s:o,s:{s:s,s:o},s:o,s:b}", "name", entry->name,
                           "description", entry->method->doc ? entry->method->doc : "", "paramStructure",
                           variadic ? "by-name" : "either", "params", params, "result", "name", "result",
                           "schema", result, "errors", errors, "x-unchecked", entry->signature.unchecked);
    return status == CREW_OK ? crew_array_add(arena, methods, described) : status;
}

/* The first service that was added names the whole. */
static crew_status discover(crew_call *call)
{
    const struct crew_entry *own = crew_call_context(call);
    const struct crew_entry *before = NULL;
    const crew_service *service = NULL;
    crew_arena *arena = crew_call_arena(call);
    crew_value *methods, *errors = NULL;
    crew_status status = crew_array_new(arena, &methods);
    if (status == CREW_OK)
        status = crew_object_new(arena, &errors);
    for (const struct crew_entry *entry = own; entry && status == CREW_OK; entry = entry->next) {
        if (entry->ours)
            continue;
        service = service ? service : entry->service;
        status = describe_method(arena, entry, methods);
        if (status == CREW_OK && !same_errors(before, entry))
            status = describe_errors(arena, entry, errors);
        before = entry;
    }
    if (status != CREW_OK)
        return status;
    const char *name = service && service->name ? service->name : "";
    const char *version = service && service->version ? service->version : "0";
    return crew_reply(call, "{s:s,s:{s:s,s:s,s:s},s:o,s:{s:o}}", "openrpc", "1.3.2", "info", "title", name,
                      "version", version, "description", service && service->doc ? service->doc : "",
                      "methods", methods, "components", "errors", errors);
}

static crew_status ping(crew_call *call)
{
    return crew_reply(call, "s", "pong");
}

static crew_status health(crew_call *call)
{
    return crew_reply(call, "{s:s}", "status", crew_call_draining(call) ? "draining" : "serving");
}

static const crew_method methods[] = {
    { "rpc.discover", discover, "", "object", "The service's methods, as an OpenRPC document." },
    { "rpc.ping", ping, "", "string", "Answers pong." },
    { "rpc.health", health, "", "object", "Its status: serving, or draining." },
    { 0 },
};

const crew_service crew_rpc_service = { .name = "rpc", .methods = methods };
