/* The scan before the parser.
 *
 * jansson has no limits to set, refuses integers beyond int64_t wherever they are, and keeps no number's
 * text. This pass over the bytes gives what that lacks, at a fraction of the parser's cost. It follows
 * strings, brackets, commas and colons; where the text is no JSON its notes are meaningless, and the parser
 * says so. */
#include "core/json_scan.h"

#include "core/value.h"

#include <errno.h>
#include <stdlib.h>

struct level {
    crew_string key; /* of the member being read, as written */
    uint32_t index;  /* of the item being read */
    bool object;
    bool key_next;
};

struct scan {
    const char *start, *at, *end;
    const crew_limits *limits;
    crew_arena *arena;
    struct crew_json_notes *notes;
    crew_error *why;
    char *copy; /* NULL until something must be masked */
    uint32_t depth;
    uint32_t item_depth; /* where items' members are: 1, or 2 in a top-level array */
    struct level levels[CREW_DEPTH_MAX + 1];
};

/* The notes of the item being read, made if there are none yet. */
static struct crew_json_item *item_notes(struct scan *s)
{
    struct crew_json_notes *notes = s->notes;
    size_t index = s->item_depth == 2 ? s->levels[1].index : 0;
    if (index >= notes->room) {
        size_t room = notes->room ? notes->room * 2 : s->item_depth == 2 ? 16 : 1;
        while (room <= index)
            room *= 2;
        struct crew_json_item *items = crew_arena_zalloc(s->arena, room * sizeof *items);
        if (!items)
            return NULL;
        if (notes->count)
            memcpy(items, notes->items, notes->count * sizeof *items);
        notes->items = items;
        notes->room = room;
    }
    if (index >= notes->count)
        notes->count = index + 1;
    return &notes->items[index];
}

/* Whether a key, as written, is name: \u escapes may stand for any character. */
static bool key_is(crew_string key, const char *name)
{
    size_t i = 0;
    for (; *name; name++) {
        if (i == key.size)
            return false;
        char c = key.data[i];
        if (c == '\\' && i + 6 <= key.size && key.data[i + 1] == 'u') {
            char hex[5] = { 0 };
            memcpy(hex, key.data + i + 2, 4);
            long code = strtol(hex, NULL, 16);
            c = '\0'; /* no name that is watched has other characters than ASCII's */
            if (code > 0 && code < 0x80)
                c = (char)code;
            i += 5;
        }
        if (c != *name)
            return false;
        i++;
    }
    return i == key.size;
}

static bool is_watched(const struct scan *s)
{
    const struct level *level = &s->levels[s->depth];
    return s->notes->watch && s->depth == s->item_depth && level->object &&
           key_is(level->key, s->notes->watch);
}

static crew_status note_watched(struct scan *s, crew_string text)
{
    if (!is_watched(s))
        return CREW_OK;
    struct crew_json_item *item = item_notes(s);
    if (!item)
        return CREW_NO_MEMORY;
    item->watched = text;
    return CREW_OK;
}

/* Where in its item the value being read is: "params.x[2]". */
static const char *place_of(struct scan *s)
{
    crew_buffer text = { 0 };
    for (uint32_t d = s->item_depth; d <= s->depth; d++) {
        const struct level *level = &s->levels[d];
        if (!level->object)
            crew_buffer_printf(&text, "[%u]", level->index);
        else
            crew_buffer_printf(&text, "%s%.*s", text.size ? "." : "", CREW_STR(level->key));
    }
    return crew_buffer_move(&text, s->arena).data;
}

static crew_status mask(struct scan *s, crew_string number)
{
    if (!s->copy) {
        size_t size = (size_t)(s->end - s->start);
        s->copy = crew_arena_alloc(s->arena, size);
        if (!s->copy)
            return CREW_NO_MEMORY;
        memcpy(s->copy, s->start, size);
    }
    char *place = s->copy + (number.data - s->start);
    memset(place, ' ', number.size);
    *place = '0';
    return CREW_OK;
}

static bool beyond_int64(crew_string number)
{
    size_t digits = number.size - (number.data[0] == '-');
    if (digits < 19)
        return false;
    char text[24];
    if (number.size >= sizeof text)
        return true;
    memcpy(text, number.data, number.size);
    text[number.size] = '\0';
    errno = 0;
    (void)strtoll(text, NULL, 10);
    return errno == ERANGE;
}

static size_t skip_digits(crew_string text, size_t at)
{
    while (at < text.size && text.data[at] >= '0' && text.data[at] <= '9')
        at++;
    return at;
}

/* The grammar of RFC 8259 section 6: what is masked is not seen by the parser. *integer: without fraction and
 * exponent. */
static bool good_number(crew_string text, bool *integer)
{
    size_t start = text.data[0] == '-', at = skip_digits(text, start);
    if (at == start || (text.data[start] == '0' && at > start + 1))
        return false;
    *integer = at == text.size;
    if (at < text.size && text.data[at] == '.') {
        size_t fraction = at + 1;
        at = skip_digits(text, fraction);
        if (at == fraction)
            return false;
    }
    if (at < text.size && (text.data[at] == 'e' || text.data[at] == 'E')) {
        size_t exponent = at + 1;
        exponent += exponent < text.size && (text.data[exponent] == '+' || text.data[exponent] == '-');
        at = skip_digits(text, exponent);
        if (at == exponent)
            return false;
    }
    return at == text.size;
}

static crew_status scan_number(struct scan *s)
{
    const char *start = s->at++;
    while (s->at < s->end && (strchr("0123456789.eE+-", *s->at) && *s->at))
        s->at++;
    crew_string number = { start, (size_t)(s->at - start) };
    crew_status status = note_watched(s, number);
    bool watched = is_watched(s), integer = false;
    bool long_enough = number.size >= 19 || (watched && number.size > 3); /* a short 1e9 fits in any case */
    if (status != CREW_OK || !long_enough || !good_number(number, &integer))
        return status;
    if (watched ? integer && !beyond_int64(number) : !integer || !beyond_int64(number))
        return CREW_OK;
    if (!watched) {
        struct crew_json_item *item = item_notes(s);
        if (item && !item->too_big)
            item->too_big = place_of(s);
        if (!item || !item->too_big)
            return CREW_NO_MEMORY;
    }
    return mask(s, number);
}

static crew_status scan_string(struct scan *s)
{
    const char *start = s->at++;
    while (s->at < s->end && *s->at != '"')
        s->at += *s->at == '\\' ? 2 : 1;
    if (s->at >= s->end) {
        s->at = s->end;
        return CREW_OK;
    }
    size_t size = (size_t)(s->at - start) - 1;
    s->at++;
    if (size > s->limits->string_bytes)
        return crew_error_set(s->why, CREW_LIMIT,
                              "a string of %zu bytes at offset %zu; at most %zu are allowed", size,
                              (size_t)(start - s->start), s->limits->string_bytes);
    struct level *level = &s->levels[s->depth];
    if (level->key_next) {
        level->key = (crew_string){ start + 1, size };
        level->key_next = false;
        return CREW_OK;
    }
    return note_watched(s, (crew_string){ start, size + 2 });
}

static crew_status scan_literal(struct scan *s)
{
    const char *start = s->at;
    while (s->at < s->end && *s->at >= 'a' && *s->at <= 'z')
        s->at++;
    return note_watched(s, (crew_string){ start, (size_t)(s->at - start) });
}

static crew_status open_level(struct scan *s, bool object)
{
    if (s->depth >= s->limits->depth)
        return crew_error_set(s->why, CREW_LIMIT, "nested deeper than %u at offset %zu", s->limits->depth,
                              (size_t)(s->at - s->start));
    crew_status status = note_watched(s, (crew_string){ 0 });
    if (s->depth == 0)
        s->item_depth = object ? 1 : 2;
    s->levels[++s->depth] = (struct level){ .object = object, .key_next = object };
    s->at++;
    return status;
}

static crew_status next_item(struct scan *s)
{
    struct level *level = &s->levels[s->depth];
    level->key_next = level->object;
    level->index++;
    if (s->depth == 1 && !level->object && level->index >= s->limits->batch)
        return crew_error_set(s->why, CREW_LIMIT, "a batch of more than %u", s->limits->batch);
    bool batch = s->notes->watch && s->depth == 1 && !level->object; /* which has a limit of its own */
    if (!batch && level->index >= s->limits->items)
        return crew_error_set(s->why, CREW_LIMIT, "more than %u items in one %s at offset %zu",
                              s->limits->items, level->object ? "object" : "array",
                              (size_t)(s->at - s->start));
    s->at++;
    return CREW_OK;
}

static crew_status scan_token(struct scan *s)
{
    char c = *s->at;
    switch (c) {
    case '"': return scan_string(s);
    case '{':
    case '[': return open_level(s, c == '{');
    case '}':
    case ']':
        s->depth -= s->depth > 0;
        s->at++;
        return CREW_OK;
    case ',': return next_item(s);
    default:
        if (c == '-' || (c >= '0' && c <= '9'))
            return scan_number(s);
        if (c >= 'a' && c <= 'z')
            return scan_literal(s);
        s->at++;
        return CREW_OK;
    }
}

crew_status crew_json_scan(crew_string *text, const crew_limits *limits, crew_arena *arena,
                           struct crew_json_notes *notes, crew_error *why)
{
    struct scan s; /* not all zeroed: most of levels is never touched */
    s.start = s.at = text->size ? text->data : "";
    s.end = s.start + text->size;
    s.limits = limits;
    s.arena = arena;
    s.notes = notes;
    s.why = why;
    s.copy = NULL;
    s.depth = 0;
    s.item_depth = 1;
    s.levels[0] = (struct level){ 0 };

    while (s.at < s.end) {
        crew_status status = scan_token(&s);
        if (status != CREW_OK)
            return status;
    }
    if (s.copy)
        text->data = s.copy;
    return CREW_OK;
}
