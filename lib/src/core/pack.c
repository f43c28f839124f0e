/* crew_pack and crew_unpack: values by format string. */
#include "core/value.h"

/* A va_list behind a pointer, so that recursion advances one and the same. */
struct arguments {
    va_list list;
};

struct packer {
    const char *format;
    crew_arena *arena;
    struct arguments *arguments;
    unsigned depth;
};

enum { DEPTH_MAX = 64 };

static const char *skip_blanks(const char *format)
{
    while (*format == ' ' || *format == ',' || *format == ':')
        format++;
    return format;
}

/* The string after s, s#, s%, S, or y%; the letter is taken already. */
static crew_status take_text(struct packer *p, char letter, crew_string *text)
{
    va_list *list = &p->arguments->list;
    if (letter == 'S') {
        *text = va_arg(*list, crew_string);
    } else {
        text->data = va_arg(*list, const char *);
        if (*p->format == '#') {
            int size = va_arg(*list, int);
            text->size = size < 0 ? 0 : (size_t)size;
            p->format++;
        } else if (*p->format == '%') {
            text->size = va_arg(*list, size_t);
            p->format++;
        } else if (letter == 'y') {
            return CREW_BAD_ARGUMENT;
        } else {
            text->size = text->data ? strlen(text->data) : 0;
        }
    }
    return text->size <= UINT32_MAX ? CREW_OK : CREW_OUT_OF_RANGE;
}

static crew_status pack_text(struct packer *p, char letter, crew_value *out)
{
    crew_string text;
    crew_status status = take_text(p, letter, &text);
    if (status != CREW_OK)
        return status;
    bool nullable = *p->format == '?' && letter == 's';
    if (nullable)
        p->format++;
    if (!text.data && nullable)
        return CREW_OK;
    if (!text.data && text.size)
        return CREW_BAD_ARGUMENT;
    crew_string copy = crew_arena_string(p->arena, text);
    if (!copy.data)
        return CREW_NO_MEMORY;
    *out = crew_make_text(letter == 'y' ? CREW_TYPE_BYTES : CREW_TYPE_STRING, copy);
    return CREW_OK;
}

static crew_status pack_custom(struct packer *p, crew_value *out)
{
    const crew_custom_type *type = va_arg(p->arguments->list, const crew_custom_type *);
    const void *object = va_arg(p->arguments->list, const void *);
    const crew_value *value = NULL;
    crew_status status = type->to_value(object, p->arena, &value);
    if (status == CREW_OK && value)
        *out = *value;
    return status;
}

static crew_status pack_value(struct packer *p, crew_value *out);

static crew_status pack_container(struct packer *p, char close, crew_value *out)
{
    if (++p->depth > DEPTH_MAX)
        return CREW_BAD_ARGUMENT;
    crew_value made = { .type = close == ']' ? CREW_TYPE_ARRAY : CREW_TYPE_OBJECT };
    for (;;) {
        p->format = skip_blanks(p->format);
        if (*p->format == close) {
            p->format++;
            p->depth--;
            *out = made;
            return CREW_OK;
        }
        crew_string key = { 0 };
        if (close == '}') {
            char letter = *p->format;
            if (letter != 's' && letter != 'S')
                return CREW_BAD_ARGUMENT;
            p->format++;
            crew_status status = take_text(p, letter, &key);
            if (status != CREW_OK || !key.data)
                return status != CREW_OK ? status : CREW_BAD_ARGUMENT;
        }
        crew_value item = { .type = CREW_TYPE_NULL };
        crew_status status = pack_value(p, &item);
        if (status == CREW_OK)
            status = close == ']' ? crew_array_add(p->arena, &made, &item)
                                  : crew_object_add(p->arena, &made, key, &item);
        if (status != CREW_OK)
            return status;
    }
}

static crew_status pack_value(struct packer *p, crew_value *out)
{
    va_list *list = &p->arguments->list;
    p->format = skip_blanks(p->format);
    char letter = *p->format;
    if (letter)
        p->format++;
    switch (letter) {
    case 'n': *out = (crew_value){ .type = CREW_TYPE_NULL }; return CREW_OK;
    case 'b': *out = crew_make_bool(va_arg(*list, int) != 0); return CREW_OK;
    case 'i': *out = crew_make_int(va_arg(*list, int)); return CREW_OK;
    case 'I': *out = crew_make_int(va_arg(*list, int64_t)); return CREW_OK;
    case 'U': *out = crew_make_uint(va_arg(*list, uint64_t)); return CREW_OK;
    case 'f': *out = crew_make_double(va_arg(*list, double)); return CREW_OK;
    case 's':
    case 'S':
    case 'y': return pack_text(p, letter, out);
    case 'o': {
        const crew_value *value = va_arg(*list, const crew_value *);
        if (value)
            *out = *value;
        return CREW_OK;
    }
    case 't': return pack_custom(p, out);
    case '[': return pack_container(p, ']', out);
    case '{': return pack_container(p, '}', out);
    default: return CREW_BAD_ARGUMENT;
    }
}

crew_status crew_vpack(crew_arena *arena, const crew_value **value, const char *format, va_list arguments)
{
    struct arguments own;
    va_copy(own.list, arguments);
    struct packer p = { .format = format, .arena = arena, .arguments = &own };
    crew_value packed = { .type = CREW_TYPE_NULL };
    crew_status status = pack_value(&p, &packed);
    va_end(own.list);
    if (status == CREW_OK && *skip_blanks(p.format))
        status = CREW_BAD_ARGUMENT;
    if (status != CREW_OK)
        return status;
    const crew_value *made = crew_value_in(arena, packed);
    if (!made)
        return CREW_NO_MEMORY;
    *value = made;
    return CREW_OK;
}

crew_status crew_pack(crew_arena *arena, const crew_value **value, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    crew_status status = crew_vpack(arena, value, format, arguments);
    va_end(arguments);
    return status;
}

crew_status crew_array_pack(crew_arena *arena, crew_value *array, const char *format, ...)
{
    const crew_value *item;
    va_list arguments;
    va_start(arguments, format);
    crew_status status = crew_vpack(arena, &item, format, arguments);
    va_end(arguments);
    return status == CREW_OK ? crew_array_add(arena, array, item) : status;
}

struct unpacker {
    const char *format;
    struct arguments *arguments;
    unsigned depth;
};

/* With skip, targets are consumed and not written: an optional member that is not there. */
static crew_status unpack_value(struct unpacker *u, const crew_value *value, bool skip);

static crew_status unpack_bytes(struct unpacker *u, char letter, const crew_value *value, bool skip)
{
    va_list *list = &u->arguments->list;
    crew_string text = { 0 };
    crew_status status = letter == 'y' ? crew_value_bytes(value, &text) : crew_value_string(value, &text);
    if (letter == 'S') {
        crew_string *target = va_arg(*list, crew_string *);
        if (!skip && status == CREW_OK)
            *target = text;
        return status;
    }
    const char **target = va_arg(*list, const char **);
    size_t *size = NULL;
    if (*u->format == '%') {
        u->format++;
        size = va_arg(*list, size_t *);
    } else if (letter == 'y') {
        return CREW_BAD_ARGUMENT;
    } else if (status == CREW_OK && memchr(text.data, 0, text.size)) {
        status = CREW_MISMATCH;
    }
    if (skip || status != CREW_OK)
        return status;
    *target = text.data;
    if (size)
        *size = text.size;
    return CREW_OK;
}

static crew_status unpack_number(char letter, va_list *list, const crew_value *value, bool skip)
{
    int64_t integer = 0;
    switch (letter) {
    case 'i': {
        int *target = va_arg(*list, int *);
        crew_status status = crew_value_int(value, &integer);
        if (status == CREW_OK && (integer < INT32_MIN || integer > INT32_MAX))
            status = CREW_OUT_OF_RANGE;
        if (!skip && status == CREW_OK)
            *target = (int)integer;
        return status;
    }
    case 'I': {
        int64_t *target = va_arg(*list, int64_t *);
        return skip ? CREW_OK : crew_value_int(value, target);
    }
    case 'U': {
        uint64_t *target = va_arg(*list, uint64_t *);
        return skip ? CREW_OK : crew_value_uint(value, target);
    }
    default: {
        double *target = va_arg(*list, double *);
        return skip ? CREW_OK : crew_value_double(value, target);
    }
    }
}

/* The target is untouched if the value is none. */
static crew_status unpack_custom(const crew_custom_type *type, const crew_value *value, void *target)
{
    crew_arena arena = { 0 };
    void *object = crew_arena_zalloc(&arena, type->size);
    crew_status status = object ? type->from_value(value, object) : CREW_NO_MEMORY;
    if (status == CREW_OK)
        memcpy(target, object, type->size);
    crew_arena_fini(&arena);
    return status;
}

static crew_status unpack_container(struct unpacker *u, char close, const crew_value *value, bool skip)
{
    crew_type wanted = close == ']' ? CREW_TYPE_ARRAY : CREW_TYPE_OBJECT;
    if (++u->depth > DEPTH_MAX)
        return CREW_BAD_ARGUMENT;
    if (!skip && crew_value_type(value) != wanted)
        return CREW_MISMATCH;
    size_t used = 0;
    bool strict = false;
    for (;;) {
        u->format = skip_blanks(u->format);
        if (*u->format == '!') {
            strict = true;
            u->format = skip_blanks(u->format + 1);
        }
        if (*u->format == close)
            break;
        if (strict)
            return CREW_BAD_ARGUMENT;
        const crew_value *item;
        bool absent = skip;
        if (close == '}') {
            if (*u->format++ != 's')
                return CREW_BAD_ARGUMENT;
            const char *key = va_arg(u->arguments->list, const char *);
            item = crew_value_get(value, key);
            if (*u->format == '?') {
                u->format++;
                absent |= !item;
            }
            used += item != NULL;
        } else {
            item = crew_value_at(value, used);
            used++;
        }
        if (!item && !absent)
            return CREW_MISMATCH;
        crew_status status = unpack_value(u, item, absent);
        if (status != CREW_OK)
            return status;
    }
    u->format++;
    u->depth--;
    return strict && !skip && used != crew_value_count(value) ? CREW_MISMATCH : CREW_OK;
}

static crew_status unpack_value(struct unpacker *u, const crew_value *value, bool skip)
{
    va_list *list = &u->arguments->list;
    u->format = skip_blanks(u->format);
    char letter = *u->format;
    if (letter)
        u->format++;
    crew_status status;
    switch (letter) {
    case 'n': status = crew_value_type(value) == CREW_TYPE_NULL ? CREW_OK : CREW_MISMATCH; break;
    case 'b': {
        bool *target = va_arg(*list, bool *);
        status = skip ? CREW_OK : crew_value_bool(value, target);
        break;
    }
    case 'i':
    case 'I':
    case 'U':
    case 'f': status = unpack_number(letter, list, value, skip); break;
    case 's':
    case 'S':
    case 'y': status = unpack_bytes(u, letter, value, skip); break;
    case 'o': {
        const crew_value **target = va_arg(*list, const crew_value **);
        if (!skip)
            *target = value;
        status = CREW_OK;
        break;
    }
    case 't': {
        const crew_custom_type *type = va_arg(*list, const crew_custom_type *);
        void *target = va_arg(*list, void *);
        status = skip ? CREW_OK : unpack_custom(type, value, target);
        break;
    }
    case '[': return unpack_container(u, ']', value, skip);
    case '{': return unpack_container(u, '}', value, skip);
    default: return CREW_BAD_ARGUMENT;
    }
    return skip && status != CREW_BAD_ARGUMENT ? CREW_OK : status;
}

crew_status crew_unpack(const crew_value *value, const char *format, ...)
{
    struct arguments own;
    va_start(own.list, format);
    struct unpacker u = { .format = format, .arguments = &own };
    crew_status status = unpack_value(&u, value, false);
    va_end(own.list);
    if (status == CREW_OK && *skip_blanks(u.format))
        status = CREW_BAD_ARGUMENT;
    return status;
}
