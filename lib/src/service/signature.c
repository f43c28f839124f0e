/* Signatures: the grammar, and binding of positional and named params. */
#include "service/signature.h"

#include "core/base64.h"
#include "core/value.h"

#include <rpcrew/json.h>

#include <assert.h>

static const char *const type_names[] = {
#define X(name, text) text,
    CREW_PARAM_LIST(X)
#undef X
};

/* ---- types ---- */

const char *crew_declared_name(const struct crew_declared *declared)
{
    return declared->custom ? declared->custom->name : type_names[declared->type];
}

static crew_param_type find_type(crew_string name)
{
    size_t i = 0;
    while (i < CREW_PARAM_COUNT && !crew_string_equal(name, crew_str(type_names[i])))
        i++;
    return (crew_param_type)i;
}

bool crew_declared_find(crew_string name, crew_custom_types types, struct crew_declared *declared)
{
    *declared = (struct crew_declared){ .type = find_type(name) };
    for (; types && *types && declared->type == CREW_PARAM_COUNT; types++)
        if (crew_string_equal(name, crew_str((*types)->name)))
            *declared =
                (struct crew_declared){ .type = find_type(crew_str((*types)->base)), .custom = *types };
    return declared->type != CREW_PARAM_COUNT;
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

crew_status crew_custom_types_check(crew_custom_types types, crew_error *why)
{
    struct crew_declared same;
    for (crew_custom_types at = types; at && *at; at++) {
        const crew_custom_type *type = *at;
        const char *wrong = NULL;
        crew_string name = crew_str(type->name);
        crew_param_type base = find_type(crew_str(type->base));
        size_t good = 0;
        while (good < name.size && name_char(name.data[good]))
            good++;
        if (!name.size || good < name.size)
            wrong = "its name is letters, digits, _ and -";
        else if (base == CREW_PARAM_COUNT ||
                 base == CREW_PARAM_BYTES) /* JSON results know nothing of bytes */
            wrong = "its base is one of any, bool, int, uint, number, string, array, object";
        else if (!type->size || !type->to_value || !type->from_value)
            wrong = "it wants a size and both functions";
        else if ((crew_declared_find(name, types, &same) && same.custom != type) ||
                 crew_string_equal(name, crew_str("null")))
            wrong = "there is one of this name already";
        if (wrong)
            return crew_error_set(why, CREW_BAD_ARGUMENT, "type '%s': %s", type->name ? type->name : "",
                                  wrong);
    }
    return CREW_OK;
}

/* ---- parsing ---- */

/* =VALUE behind the type. */
static crew_status parse_fallback(crew_string text, crew_arena *arena, struct crew_param *param,
                                  crew_error *why);

static crew_status parse_type(crew_string text, crew_custom_types types, crew_arena *arena,
                              struct crew_param *param, crew_error *why)
{
    const char *equals = memchr(text.data, '=', text.size);
    crew_string fallback = { equals ? equals + 1 : NULL,
                             equals ? text.size - (size_t)(equals + 1 - text.data) : 0 };
    if (equals)
        text.size = (size_t)(equals - text.data);
    if (text.size > 3 && memcmp(text.data + text.size - 3, "...", 3) == 0) {
        param->variadic = true;
        text.size -= 3;
    } else if (text.size > 1 && text.data[text.size - 1] == '?') {
        param->optional = true;
        text.size--;
    }
    if (!crew_declared_find(text, types, &param->declared))
        return crew_error_set(
            why, CREW_BAD_ARGUMENT,
            "param '%.*s': no type '%.*s'; there are any, bool, int, uint, number, string, "
            "bytes, array, object, and the service's own, each with ?, =default or ... behind it",
            CREW_STR(param->name), CREW_STR(text));
    return equals ? parse_fallback(fallback, arena, param, why) : CREW_OK;
}

static crew_status parse_param(crew_string token, crew_custom_types types, crew_arena *arena,
                               const struct crew_signature *before, struct crew_param *param, crew_error *why)
{
    *param = (struct crew_param){ .name = { token.data, 0 } };
    while (param->name.size < token.size && name_char(token.data[param->name.size]))
        param->name.size++;
    size_t behind = param->name.size;
    if (param->name.size == 0 || behind >= token.size || token.data[behind] != ':')
        return crew_error_set(why, CREW_BAD_ARGUMENT, "'%.*s' is not name:type", CREW_STR(token));
    crew_status status = parse_type((crew_string){ token.data + behind + 1, token.size - behind - 1 }, types,
                                    arena, param, why);
    if (status != CREW_OK)
        return status;
    for (size_t i = 0; i < before->count; i++) {
        const struct crew_param *other = &before->params[i];
        if (other->variadic)
            return crew_error_set(why, CREW_BAD_ARGUMENT, "'%.*s' comes behind ...", CREW_STR(token));
        if (other->optional && !param->optional && !param->variadic)
            return crew_error_set(why, CREW_BAD_ARGUMENT,
                                  "'%.*s' comes behind an optional param; it wants a ? or =default",
                                  CREW_STR(token));
        if (crew_string_equal(other->name, param->name))
            return crew_error_set(why, CREW_BAD_ARGUMENT, "param '%.*s' is there twice",
                                  CREW_STR(param->name));
    }
    return CREW_OK;
}

crew_status crew_signature_parse(const char *text, crew_custom_types types, crew_arena *arena,
                                 struct crew_signature *signature, crew_error *why)
{
    *signature = (struct crew_signature){ .unchecked = !text };
    if (!text)
        return CREW_OK;
    size_t most = strlen(text) / 2 + 1;
    signature->params = crew_arena_alloc(arena, most * sizeof *signature->params);
    if (!signature->params)
        return crew_error_set(why, CREW_NO_MEMORY, "no memory");
    for (;;) {
        text += strspn(text, " ");
        crew_string token = { text, strcspn(text, " ") };
        if (token.size == 0)
            return CREW_OK;
        struct crew_param *param = &signature->params[signature->count];
        crew_status status = parse_param(token, types, arena, signature, param, why);
        if (status != CREW_OK)
            return status;
        signature->custom |= param->declared.custom != NULL;
        signature->count++;
        text += token.size;
    }
}

/* ---- binding ---- */

struct binding {
    const struct crew_signature *signature;
    bool base64_bytes;
    crew_arena *arena;
    const crew_value **data;
    crew_error *why;
};

static const char *article(const char *word)
{
    return strcmp(word, "bytes") == 0 ? "" : strchr("aeio", word[0]) ? "an " : "a ";
}

static crew_status mismatch(const struct binding *b, const struct crew_param *param, const char *got)
{
    const char *expected = crew_declared_name(&param->declared);
    if (crew_pack(b->arena, b->data, "{s:S,s:s,s:s}", "param", param->name, "expected", expected, "got",
                  got) != CREW_OK)
        return CREW_NO_MEMORY;
    return crew_error_set(b->why, CREW_MISMATCH, "param '%.*s' wants %s%s, not %s", CREW_STR(param->name),
                          article(expected), expected, got);
}

/* The name of a param is wrong, or nothing is given for it. */
static crew_status misfit(const struct binding *b, const char *before, crew_string param, const char *after)
{
    if (crew_pack(b->arena, b->data, "{s:S}", "param", param) != CREW_OK)
        return CREW_NO_MEMORY;
    return crew_error_set(b->why, CREW_MISMATCH, "%s '%.*s'%s", before, CREW_STR(param), after);
}

static crew_status bind_integer(const struct binding *b, const struct crew_param *param,
                                const crew_value *value, const crew_value **out)
{
    int64_t integer;
    uint64_t natural;
    bool is_uint = param->declared.type == CREW_PARAM_UINT;
    crew_status status = is_uint ? crew_value_uint(value, &natural) : crew_value_int(value, &integer);
    if (status != CREW_OK) {
        const char *got = crew_type_name(crew_value_type(value));
        if (status == CREW_OUT_OF_RANGE)
            got = is_uint ? "an integer out of its range" : "an integer beyond int64";
        return mismatch(b, param, got);
    }
    *out = value;
    if (value->type == CREW_TYPE_DOUBLE)
        *out = crew_value_in(b->arena, is_uint ? crew_make_uint(natural) : crew_make_int(integer));
    return *out ? CREW_OK : CREW_NO_MEMORY;
}

static crew_status bind_bytes(const struct binding *b, const struct crew_param *param,
                              const crew_value *value, const crew_value **out)
{
    crew_string bytes;
    if (crew_value_type(value) != CREW_TYPE_STRING)
        return mismatch(b, param, crew_type_name(crew_value_type(value)));
    crew_status status = CREW_OK;
    if (b->base64_bytes)
        status = crew_base64_decode(crew_text_of(value), b->arena, &bytes);
    else
        bytes = crew_text_of(value);
    if (status == CREW_MALFORMED)
        return mismatch(b, param, "a string that is not base64");
    const crew_value *made =
        status == CREW_OK ? crew_value_in(b->arena, crew_make_text(CREW_TYPE_BYTES, bytes)) : NULL;
    if (!made)
        return CREW_NO_MEMORY;
    *out = made;
    return CREW_OK;
}

static crew_status bind_value(const struct binding *b, const struct crew_param *param,
                              const crew_value *value, const crew_value **out)
{
    crew_type type = crew_value_type(value);
    bool fits = false;
    switch (param->declared.type) {
    case CREW_PARAM_INT:
    case CREW_PARAM_UINT: return bind_integer(b, param, value, out);
    case CREW_PARAM_BYTES:
        if (type != CREW_TYPE_BYTES)
            return bind_bytes(b, param, value, out);
        fits = true;
        break;
    case CREW_PARAM_NUMBER:
        fits = type == CREW_TYPE_INT || type == CREW_TYPE_UINT || type == CREW_TYPE_DOUBLE;
        break;
    case CREW_PARAM_BOOL: fits = type == CREW_TYPE_BOOL; break;
    case CREW_PARAM_STRING: fits = type == CREW_TYPE_STRING; break;
    case CREW_PARAM_ARRAY: fits = type == CREW_TYPE_ARRAY; break;
    case CREW_PARAM_OBJECT: fits = type == CREW_TYPE_OBJECT; break;
    case CREW_PARAM_ANY:
    case CREW_PARAM_COUNT: fits = true; break;
    }
    if (!fits)
        return mismatch(b, param, crew_type_name(type));
    *out = value;
    return CREW_OK;
}

/* null stands for an optional param that is not given. */
static bool is_given(const struct crew_param *param, const crew_value *value)
{
    bool nothing = param->optional && param->declared.type != CREW_PARAM_ANY;
    return value && !(nothing && value->type == CREW_TYPE_NULL);
}

/* The C object that the value stands for. */
static crew_status bind_custom(const struct binding *b, const struct crew_param *param,
                               const crew_value *value, const void **object)
{
    const crew_custom_type *type = param->declared.custom;
    void *made = crew_arena_zalloc(b->arena, type->size);
    crew_status status = made ? type->from_value(value, made) : CREW_NO_MEMORY;
    if (status == CREW_OK)
        *object = made;
    if (status == CREW_OK || status == CREW_NO_MEMORY)
        return status;
    crew_error got;
    const char *is = crew_type_name(crew_value_type(value));
    crew_error_set(&got, status, "%s%s that is none", article(is), is);
    return mismatch(b, param, got.message);
}

static crew_status parse_fallback(crew_string text, crew_arena *arena, struct crew_param *param,
                                  crew_error *why)
{
    const crew_value *value = NULL, *bound = NULL, *data;
    const void *object = NULL;
    crew_error reason;
    const struct binding b = { NULL, false, arena, &data, &reason };
    if (param->optional || param->variadic || param->declared.type == CREW_PARAM_BYTES)
        return crew_error_set(why, CREW_BAD_ARGUMENT, "param '%.*s': no default goes with ?, ... or bytes",
                              CREW_STR(param->name));
    crew_status status = crew_json_decode(text, NULL, arena, &value, &reason);
    if (status == CREW_OK)
        status = bind_value(&b, param, value, &bound);
    if (status == CREW_OK && param->declared.custom)
        status = bind_custom(&b, param, bound, &object);
    if (status == CREW_NO_MEMORY)
        return crew_error_set(why, status, "no memory");
    if (status != CREW_OK || value->type == CREW_TYPE_NULL)
        return crew_error_set(why, CREW_BAD_ARGUMENT,
                              "param '%.*s': the default '%.*s' is no %s in JSON, without spaces",
                              CREW_STR(param->name), CREW_STR(text), crew_declared_name(&param->declared));
    param->optional = true;
    param->fallback = value;
    return CREW_OK;
}

static crew_status bind_one(const struct binding *b, size_t index, const crew_value *value,
                            const struct crew_arguments *arguments)
{
    const struct crew_param *param = crew_signature_param(b->signature, index);
    const crew_value **slot = &arguments->items[index];
    *slot = NULL;
    if (!is_given(param, value))
        value = param->fallback;
    if (!value)
        return param->optional ? CREW_OK : misfit(b, "param", param->name, " is missing");
    crew_status status = bind_value(b, param, value, slot);
    assert(arguments->objects || !param->declared.custom); /* reserve has seen to it */
    if (status == CREW_OK && param->declared.custom)
        status = bind_custom(b, param, *slot, &arguments->objects[index]);
    return status;
}

static crew_status reserve(const struct binding *b, size_t count, struct crew_arguments *arguments)
{
    *arguments = (struct crew_arguments){ .count = count };
    arguments->items = crew_arena_alloc(b->arena, count * sizeof(crew_value *));
    if (b->signature->custom)
        arguments->objects = crew_arena_zalloc(b->arena, count * sizeof(void *));
    return arguments->items && (arguments->objects || !b->signature->custom) ? CREW_OK : CREW_NO_MEMORY;
}

static crew_status bind_positional(const struct binding *b, const crew_value *params,
                                   struct crew_arguments *arguments)
{
    const struct crew_signature *signature = b->signature;
    size_t given = crew_value_count(params);
    bool variadic = signature->count && signature->params[signature->count - 1].variadic;
    size_t fixed = signature->count - variadic;
    if (given > fixed && !variadic) {
        if (crew_pack(b->arena, b->data, "{s:I,s:I}", "expected", (int64_t)fixed, "got", (int64_t)given) !=
            CREW_OK)
            return CREW_NO_MEMORY;
        return crew_error_set(b->why, CREW_MISMATCH, "%zu params, but it takes %zu", given, fixed);
    }
    size_t count = given > fixed ? given : fixed;
    crew_status status = reserve(b, count, arguments);
    for (size_t i = 0; i < count && status == CREW_OK; i++)
        status = bind_one(b, i, crew_value_at(params, i), arguments);
    return status;
}

static crew_status check_names(const struct binding *b, const crew_value *params)
{
    const struct crew_signature *signature = b->signature;
    for (size_t m = 0; m < crew_value_count(params); m++) {
        crew_string key = crew_str("");
        bool named = crew_value_string(crew_value_key_at(params, m), &key) == CREW_OK;
        size_t i = 0;
        while (i < signature->count && !crew_string_equal(signature->params[i].name, key))
            i++;
        if (!named || i == signature->count)
            return misfit(b, "there is no param", key, "");
    }
    return CREW_OK;
}

/* A variadic param's values come as an array under its name. */
static crew_status bind_named(const struct binding *b, const crew_value *params,
                              struct crew_arguments *arguments)
{
    const struct crew_signature *signature = b->signature;
    crew_status status = check_names(b, params);
    if (status != CREW_OK)
        return status;
    const struct crew_param *last = signature->count ? &signature->params[signature->count - 1] : NULL;
    const crew_value *more = NULL;
    size_t fixed = signature->count;
    if (last && last->variadic) {
        fixed--;
        more = crew_value_find(params, last->name);
        if (more && more->type != CREW_TYPE_ARRAY)
            return misfit(b, "param", last->name, " wants an array of its values");
    }
    size_t count = fixed + crew_value_count(more);
    status = reserve(b, count, arguments);
    for (size_t i = 0; i < count && status == CREW_OK; i++) {
        const crew_value
            *value = /* NOLINTNEXTLINE(*NullDereference): where count is not 0, params is not NULL */
            i < fixed ? crew_value_find(params, signature->params[i].name) : crew_value_at(more, i - fixed);
        status = bind_one(b, i, value, arguments);
    }
    return status;
}

static crew_status bind_unchecked(const struct binding *b, const crew_value *params,
                                  struct crew_arguments *arguments)
{
    size_t count = crew_value_type(params) == CREW_TYPE_ARRAY ? crew_value_count(params) : 0;
    crew_status status = reserve(b, count, arguments);
    for (size_t i = 0; i < count && status == CREW_OK; i++)
        arguments->items[i] = crew_value_at(params, i);
    return status;
}

crew_status crew_signature_bind(const struct crew_signature *signature, const crew_value *params,
                                bool base64_bytes, crew_arena *arena, struct crew_arguments *arguments,
                                const crew_value **data, crew_error *why)
{
    /* cppcheck-suppress ctuuninitvar; *why is only written */
    struct binding b = { signature, base64_bytes, arena, data, why };
    if (signature->unchecked)
        return bind_unchecked(&b, params, arguments);
    if (crew_value_type(params) == CREW_TYPE_OBJECT)
        return bind_named(&b, params, arguments);
    return bind_positional(&b, params, arguments);
}

const struct crew_param *crew_signature_param(const struct crew_signature *signature, size_t index)
{
    if (index < signature->count)
        return &signature->params[index];
    const struct crew_param *last = signature->count ? &signature->params[signature->count - 1] : NULL;
    return last && last->variadic ? last : NULL;
}
