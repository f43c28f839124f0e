/* The reader of JSON text: json_read.c has its containers and its stack, json_scalar.c strings and numbers.
 */
#ifndef CORE_JSON_READER_H
#define CORE_JSON_READER_H

#include "core/json.h"
#include "core/value.h"

enum { JSON_FIRST_VALUES = 128 };

/* Values that wait; the newest block is filled, the older ones are full. */
struct json_block {
    struct json_block *older;
    size_t count, room;
    crew_value *values; /* behind it, but for the first, whose are the reader's */
};

/* An array or object that is open. */
struct json_level {
    const char *start;
    uint32_t count; /* of its values that wait: items, or keys and values */
    bool object;
    bool full;    /* has as many items as are allowed: others are read and dropped */
    bool watched; /* the member being read is */
};

struct json_reader {
    const char *at, *end, *start;
    crew_arena *arena;
    const crew_limits *limits;
    struct json_block *block, *spare;
    uint32_t depth;
    uint32_t item_depth; /* where items' members are: 1, or 2 in an array of items */
    struct crew_json_notes *notes;
    crew_error *why;
    bool whole;       /* a value is complete, on top of the stack */
    const char *text; /* of that value */
    bool passed_over; /* in the item's member being read there is something that was not looked at */
    struct json_block first;
    crew_value first_values[JSON_FIRST_VALUES];
    struct json_level levels[CREW_DEPTH_MAX + 1]; /* from 1 on */
};

static inline void json_skip_space(struct json_reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t'))
        r->at++;
}

static inline bool json_is_next(const struct json_reader *r, char c)
{
    return r->at < r->end && *r->at == c;
}

/* What is at r->at breaks the grammar. Returns CREW_MALFORMED. */
crew_status crew_json_malformed(struct json_reader *r, const char *words);
/* Something, from on, is good JSON and cannot be carried. It costs its item, or, without notes, the text. */
crew_status crew_json_fault(struct json_reader *r, crew_status status, const char *from, const char *what);
crew_status crew_json_no_memory(struct json_reader *r);

/* The string whose opening quote is at r->at; the number that begins there. */
crew_status crew_json_read_string(struct json_reader *r, crew_value *out);
crew_status crew_json_read_number(struct json_reader *r, crew_value *out);

#endif
