/* JSON text (RFC 8259) to values, in one pass over the bytes.
 *
 * Values whose container is still open wait on a stack; when it closes, they are moved to the arena, as many
 * as there are. So nothing is counted before, and nothing is copied twice. */
#include "core/json_reader.h"
#include "core/memory.h"

#include <rpcrew/impl/message.h>

#include <assert.h>
#include <stdio.h>

enum { BLOCK_BYTES_MOST = 256 << 10 };

/* ---- what is wrong ---- */

crew_status crew_json_malformed(struct json_reader *r, const char *words)
{
    size_t offset = (size_t)(r->at - r->start);
    if (r->at >= r->end)
        return crew_error_set(r->why, CREW_MALFORMED, "cut short at offset %zu", offset);
    return crew_error_set(r->why, CREW_MALFORMED, "%s at offset %zu", words, offset);
}

crew_status crew_json_no_memory(struct json_reader *r)
{
    return crew_error_set(r->why, CREW_NO_MEMORY, "no memory");
}

/* The notes of the item being read, made if there are none yet; NULL without memory. */
static struct crew_json_item *item_notes(struct json_reader *r)
{
    struct crew_json_notes *notes = r->notes;
    size_t index = r->item_depth == 2 && r->depth ? r->levels[1].count : 0;
    if (index >= notes->room) {
        size_t room = notes->room ? notes->room : r->item_depth == 2 ? 16 : 1;
        while (room <= index)
            room *= 2;
        struct crew_json_item *items = crew_arena_zalloc(r->arena, room * sizeof *items);
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

/* A value that waits, by how many there are above it. */
static const crew_value *waiting(const struct json_reader *r, size_t above)
{
    const struct json_block *block = r->block;
    while (above >= block->count) {
        above -= block->count;
        block = block->older;
        assert(block);
    }
    return &block->values[block->count - 1 - above];
}

/* The key of the member being read in a level; NULL if there is none, or it is a key that is being read. */
static const crew_value *key_of(const struct json_reader *r, uint32_t depth)
{
    size_t above = 0;
    for (uint32_t d = depth + 1; d <= r->depth; d++)
        above += r->levels[d].count;
    return r->levels[depth].object && r->levels[depth].count % 2 ? waiting(r, above) : NULL;
}

/* Where in its item the value being read is, " at params.x[2]", or else in the text; cut if it is long. */
static void print_place(const struct json_reader *r, const char *from, char *text, size_t room)
{
    size_t size = 0;
    for (uint32_t d = r->item_depth; d <= r->depth && size < room; d++) {
        const crew_value *key = key_of(r, d);
        int printed = 0;
        if (key)
            printed = snprintf(text + size, room - size, "%s%.*s", size ? "." : " at ",
                               CREW_STR(crew_text_of(key)));
        else if (!r->levels[d].object)
            printed = snprintf(text + size, room - size, "%s[%u]", size ? "" : " at ", r->levels[d].count);
        size += printed > 0 ? (size_t)printed : 0;
    }
    if (size >= room)
        (void)snprintf(text + room - 4, 4, "...");
    if (!size)
        (void)snprintf(text, room, " at offset %zu", (size_t)(from - r->start));
}

crew_status crew_json_fault(struct json_reader *r, crew_status status, const char *from, const char *what)
{
    char place[160];
    crew_error why;
    const struct json_level *member = &r->levels[r->item_depth];
    bool in_item = r->notes && r->depth >= r->item_depth;
    if (in_item && member->watched && r->depth == r->item_depth && !r->passed_over)
        return CREW_OK; /* its text is what counts */
    print_place(r, from, place, sizeof place);
    crew_error_set(&why, status, "%s%s", what, place);
    if (!r->notes)
        return crew_error_set(r->why, status, "%s", why.message);
    struct crew_json_item *item = item_notes(r);
    if (!item)
        return crew_json_no_memory(r);
    if (item->fault != CREW_OK)
        return CREW_OK;
    const crew_value *key = in_item ? key_of(r, r->item_depth) : NULL;
    item->words = crew_arena_string(r->arena, crew_str(why.message)).data;
    item->in_params = key && crew_string_equal(crew_text_of(key), crew_str("params"));
    item->fault = status;
    return item->words ? CREW_OK : crew_json_no_memory(r);
}

/* ---- the stack ---- */

static struct json_block *block_new(size_t room)
{
    size_t size = sizeof(struct json_block) + room * sizeof(crew_value);
    struct json_block *block = crew_pages_new(size);
    if (block)
        *block = (struct json_block){ .room = room, .values = (crew_value *)(void *)(block + 1) };
    return block;
}

static void block_free(struct json_block *block)
{
    if (block)
        crew_pages_free(block, sizeof *block + block->room * sizeof(crew_value));
}

static crew_value *push_block(struct json_reader *r)
{
    size_t most = (BLOCK_BYTES_MOST - sizeof(struct json_block)) / sizeof(crew_value);
    size_t room = r->block->room * 4 < most ? r->block->room * 4 : most;
    struct json_block *block = r->spare ? r->spare : block_new(room);
    r->spare = NULL;
    if (!block)
        return NULL;
    block->older = r->block;
    block->count = 1;
    r->block = block;
    return block->values;
}

/* A place for one more; NULL without memory. */
static inline crew_value *push(struct json_reader *r)
{
    struct json_block *block = r->block;
    return block->count < block->room ? &block->values[block->count++] : push_block(r);
}

static void pop_block(struct json_reader *r)
{
    struct json_block *empty = r->block;
    r->block = empty->older;
    block_free(r->spare);
    r->spare = empty; /* the next value may want it again */
}

/* Takes the count newest off, to a place for them, in order; to NULL: drops them. */
static void pop(struct json_reader *r, crew_value *to, size_t count)
{
    while (count) {
        struct json_block *block = r->block;
        size_t some = count < block->count ? count : block->count;
        block->count -= some;
        count -= some;
        if (to)
            memcpy(to + count, block->values + block->count, some * sizeof *to);
        if (!block->count && block->older)
            pop_block(r);
    }
}

static void free_blocks(struct json_reader *r)
{
    while (r->block != &r->first)
        pop_block(r);
    block_free(r->spare);
}

static crew_status read_literal(struct json_reader *r, const char *word, crew_value value, crew_value *out)
{
    const char *start = r->at;
    for (; *word && json_is_next(r, *word); word++)
        r->at++;
    if (*word) {
        r->at = r->at < r->end ? start : r->end;
        return crew_json_malformed(r, "no value");
    }
    *out = value;
    return CREW_OK;
}

/* ---- containers ---- */

/* Passes over what is nested too deep; only brackets and strings count there. */
static crew_status skip_container(struct json_reader *r)
{
    const char *start = r->at;
    size_t open = 0;
    do {
        int c = r->at < r->end ? *r->at : '\0';
        if (r->at >= r->end)
            return crew_json_malformed(r, "");
        r->at++;
        open += c == '[' || c == '{';
        open -= c == ']' || c == '}';
        while (c == '"' && !json_is_next(r, '"')) {
            if (r->at >= r->end)
                return crew_json_malformed(r, "");
            r->at += json_is_next(r, '\\') && r->end - r->at > 1 ? 2 : 1;
        }
        r->at += c == '"';
    } while (open);
    char what[60];
    (void)snprintf(what, sizeof what, "nested deeper than %u", r->limits->depth);
    r->passed_over = true;
    return crew_json_fault(r, CREW_LIMIT, start, what);
}

/* The key at r->at, and the colon behind it. */
static crew_status read_key(struct json_reader *r)
{
    struct json_level *level = &r->levels[r->depth];
    json_skip_space(r);
    if (!json_is_next(r, '"'))
        return crew_json_malformed(r, "no key");
    crew_value key = { .type = CREW_TYPE_NULL };
    crew_status status = crew_json_read_string(r, &key);
    if (status != CREW_OK)
        return status;
    crew_value *place = push(r);
    if (!place)
        return crew_json_no_memory(r);
    *place = key;
    level->count++;
    level->watched = r->notes && r->notes->watch && r->depth == r->item_depth &&
                     crew_string_equal(crew_text_of(&key), crew_str(r->notes->watch));
    if (r->depth == r->item_depth)
        r->passed_over = false;
    json_skip_space(r);
    if (!json_is_next(r, ':'))
        return crew_json_malformed(r, "no colon behind a key");
    r->at++;
    return CREW_OK;
}

/* The container that is complete: what waits of it becomes one value. */
static crew_status close_level(struct json_reader *r)
{
    const struct json_level *level = &r->levels[r->depth];
    size_t count = level->count;
    crew_value made = { .type = level->object ? CREW_TYPE_OBJECT : CREW_TYPE_ARRAY, .size = (uint32_t)count };
    crew_value *items = crew_arena_alloc(r->arena, count * sizeof *items);
    if (!items)
        return crew_json_no_memory(r);
    pop(r, items, count);
    made.items = items;
    if (level->object) {
        made.members = (struct crew_member *)(void *)items;
        made.size /= 2;
        if (crew_object_unite(&made) != CREW_OK)
            return crew_json_no_memory(r);
    }
    crew_value *place = push(r);
    if (!place)
        return crew_json_no_memory(r);
    *place = made;
    r->text = level->start;
    r->whole = true;
    r->depth--;
    r->at++;
    return CREW_OK;
}

static crew_status open_level(struct json_reader *r, bool object)
{
    if (!r->depth)
        r->item_depth = r->notes && !object ? 2 : 1;
    r->levels[++r->depth] = (struct json_level){ .start = r->at++, .object = object };
    json_skip_space(r);
    if (json_is_next(r, object ? '}' : ']'))
        return close_level(r);
    r->whole = false;
    return object ? read_key(r) : CREW_OK;
}

/* The value that begins at r->at: a scalar, or a container whose first value comes next. */
static crew_status begin_value(struct json_reader *r)
{
    json_skip_space(r);
    int c = r->at < r->end ? *r->at : '\0';
    bool container = c == '{' || c == '[', too_deep = container && r->depth >= r->limits->depth;
    if (container && !too_deep)
        return open_level(r, c == '{');
    crew_value value = { .type = CREW_TYPE_NULL };
    crew_status status;
    r->text = r->at;
    if (too_deep)
        status = skip_container(r);
    else if (c == '"')
        status = crew_json_read_string(r, &value);
    else if (c == '-' || (c >= '0' && c <= '9'))
        status = crew_json_read_number(r, &value);
    else if (c == 't')
        status = read_literal(r, "true", crew_make_bool(true), &value);
    else if (c == 'f')
        status = read_literal(r, "false", crew_make_bool(false), &value);
    else if (c == 'n')
        status = read_literal(r, "null", value, &value);
    else
        return crew_json_malformed(r, "no value");
    if (status != CREW_OK)
        return status;
    crew_value *place = push(r);
    if (!place)
        return crew_json_no_memory(r);
    *place = value;
    r->whole = true;
    return CREW_OK;
}

/* The text of a watched member, which ends at r->at. What was passed over may be no JSON: it is not echoed.
 */
static crew_status note_watched(struct json_reader *r)
{
    struct crew_json_item *item = item_notes(r);
    if (!item)
        return crew_json_no_memory(r);
    item->watched = (crew_string){ 0 };
    if (!r->passed_over)
        item->watched = (crew_string){ r->text, (size_t)(r->at - r->text) };
    return CREW_OK;
}

/* Whether one more would be too many; the first time it is told. */
static crew_status check_count(struct json_reader *r, struct json_level *level)
{
    bool batch = r->item_depth == 2 && r->depth == 1;
    uint32_t count = level->object ? level->count / 2 : level->count;
    if (batch && count >= r->limits->batch)
        return crew_error_set(r->why, CREW_LIMIT, "a batch of more than %u", r->limits->batch);
    if (batch || count < r->limits->items || level->full)
        return CREW_OK;
    char what[80];
    (void)snprintf(what, sizeof what, "more than %u items in one %s", r->limits->items,
                   level->object ? "object" : "array");
    level->full = true;
    return crew_json_fault(r, CREW_LIMIT, r->at, what);
}

/* Behind a whole value in a container: the next one, or the container's end. */
static crew_status end_value(struct json_reader *r)
{
    struct json_level *level = &r->levels[r->depth];
    crew_status status = level->watched ? note_watched(r) : CREW_OK;
    level->watched = false;
    level->count++;
    if (level->full) {
        pop(r, NULL, level->object ? 2 : 1);
        level->count -= level->object ? 2 : 1;
    }
    json_skip_space(r);
    if (status != CREW_OK)
        return status;
    if (json_is_next(r, level->object ? '}' : ']'))
        return close_level(r);
    if (!json_is_next(r, ','))
        return crew_json_malformed(r, level->object ? "neither ',' nor '}'" : "neither ',' nor ']'");
    status = check_count(r, level);
    r->at++;
    r->whole = false;
    return status == CREW_OK && level->object ? read_key(r) : status;
}

static crew_status read_tree(struct json_reader *r)
{
    crew_status status = CREW_OK;
    do {
        status = begin_value(r);
        while (status == CREW_OK && r->whole && r->depth)
            status = end_value(r);
    } while (status == CREW_OK && r->depth);
    return status;
}

crew_status crew_json_read(crew_string text, size_t *at, const crew_limits *limits, crew_arena *arena,
                           struct crew_json_notes *notes, const crew_value **value, crew_error *why)
{
    static const char mark[] = "\xEF\xBB\xBF"; /* a byte order mark, which some put before the text */
    struct json_reader r;                      /* not all zeroed: most of it is never touched */
    r.start = text.size ? text.data : "";
    r.at = r.start + (at ? *at : 0);
    r.end = r.start + text.size;
    r.arena = arena;
    r.limits = limits;
    r.first = (struct json_block){ .room = JSON_FIRST_VALUES, .values = r.first_values };
    r.block = &r.first;
    r.spare = NULL;
    r.depth = 0;
    r.item_depth = 1;
    r.levels[0] = r.levels[1] = (struct json_level){ 0 };
    r.notes = notes;
    r.why = why;
    r.whole = r.passed_over = false;

    if (text.size > limits->message_bytes)
        return crew_error_set(why, CREW_LIMIT, "%zu bytes; at most %zu are allowed", text.size,
                              limits->message_bytes);
    if (r.at == r.start && text.size >= 3 && memcmp(r.at, mark, 3) == 0)
        r.at += 3;
    crew_status status = read_tree(&r);
    crew_value *made = status == CREW_OK ? crew_value_in(arena, *waiting(&r, 0)) : NULL;
    if (status == CREW_OK && !made)
        status = crew_json_no_memory(&r);
    if (status == CREW_OK && !at) {
        json_skip_space(&r);
        if (r.at < r.end)
            status = crew_json_malformed(&r, "something behind the value");
    }
    free_blocks(&r);
    if (at)
        *at = (size_t)(r.at - r.start);
    if (status == CREW_OK)
        *value = made;
    return status;
}

crew_status crew_json_decode(crew_string text, const crew_limits *limits, crew_arena *arena,
                             const crew_value **value, crew_error *why)
{
    const crew_limits resolved = crew_limits_resolve(limits);
    return crew_json_read(text, NULL, &resolved, arena, NULL, value, why);
}
