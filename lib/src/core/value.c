/* Values: reading, comparing and building them. */
#include "core/value.h"

#include "core/memory.h"

#include <math.h>
#include <pthread.h>
#include <sys/random.h>
#include <time.h>

const char *crew_type_name(crew_type type)
{
    static const char *const names[] = {
#define X(name, text) text,
        CREW_TYPE_LIST(X)
#undef X
    };
    return (unsigned)type < CREW_TYPE_COUNT ? names[type] : "?";
}

crew_type crew_value_type(const crew_value *value)
{
    return value ? (crew_type)value->type : CREW_TYPE_NULL;
}

crew_status crew_value_bool(const crew_value *value, bool *out)
{
    if (crew_value_type(value) != CREW_TYPE_BOOL)
        return CREW_MISMATCH;
    *out = value->boolean;
    return CREW_OK;
}

bool crew_double_is_int(double number)
{
    return number >= -9223372036854775808.0 && number < 9223372036854775808.0 && number == trunc(number);
}

crew_status crew_value_int(const crew_value *value, int64_t *out)
{
    switch (crew_value_type(value)) {
    case CREW_TYPE_INT: *out = value->integer; return CREW_OK;
    case CREW_TYPE_UINT: return CREW_OUT_OF_RANGE;
    case CREW_TYPE_DOUBLE:
        if (!crew_double_is_int(value->number))
            return value->number == trunc(value->number) ? CREW_OUT_OF_RANGE : CREW_MISMATCH;
        *out = (int64_t)value->number;
        return CREW_OK;
    default: return CREW_MISMATCH;
    }
}

crew_status crew_value_uint(const crew_value *value, uint64_t *out)
{
    if (crew_value_type(value) == CREW_TYPE_UINT) {
        *out = value->natural;
        return CREW_OK;
    }
    bool beyond_int = crew_value_type(value) == CREW_TYPE_DOUBLE && value->number >= 9223372036854775808.0 &&
                      value->number < 18446744073709551616.0; /* where all doubles are whole */
    if (beyond_int) {
        *out = (uint64_t)value->number;
        return CREW_OK;
    }
    int64_t number;
    crew_status status = crew_value_int(value, &number);
    if (status != CREW_OK)
        return status;
    if (number < 0)
        return CREW_OUT_OF_RANGE;
    *out = (uint64_t)number;
    return CREW_OK;
}

crew_status crew_value_double(const crew_value *value, double *out)
{
    switch (crew_value_type(value)) {
    case CREW_TYPE_INT: *out = (double)value->integer; return CREW_OK;
    case CREW_TYPE_UINT: *out = (double)value->natural; return CREW_OK;
    case CREW_TYPE_DOUBLE: *out = value->number; return CREW_OK;
    default: return CREW_MISMATCH;
    }
}

crew_status crew_value_string(const crew_value *value, crew_string *out)
{
    if (crew_value_type(value) != CREW_TYPE_STRING)
        return CREW_MISMATCH;
    *out = crew_text_of(value);
    return CREW_OK;
}

crew_status crew_value_bytes(const crew_value *value, crew_string *out)
{
    crew_type type = crew_value_type(value);
    if (type != CREW_TYPE_STRING && type != CREW_TYPE_BYTES && type != CREW_TYPE_EXT)
        return CREW_MISMATCH;
    *out = crew_text_of(value);
    return CREW_OK;
}

int crew_value_ext_type(const crew_value *value)
{
    return crew_value_type(value) == CREW_TYPE_EXT ? value->ext_type : 0;
}

size_t crew_value_count(const crew_value *value)
{
    crew_type type = crew_value_type(value);
    return type == CREW_TYPE_ARRAY || type == CREW_TYPE_OBJECT ? value->size : 0;
}

const crew_value *crew_value_at(const crew_value *value, size_t index)
{
    if (index >= crew_value_count(value))
        return NULL;
    return value->type == CREW_TYPE_ARRAY ? &value->items[index] : &value->members[index].value;
}

const crew_value *crew_value_key_at(const crew_value *value, size_t index)
{
    if (crew_value_type(value) != CREW_TYPE_OBJECT || index >= value->size)
        return NULL;
    return &value->members[index].key;
}

static struct crew_member *find_member(const crew_value *object, crew_string key)
{
    for (size_t i = object->size; i-- > 0;) { /* of two with the same key, the last */
        struct crew_member *member = &object->members[i];
        if (member->key.type == CREW_TYPE_STRING && crew_string_equal(crew_text_of(&member->key), key))
            return member;
    }
    return NULL;
}

const crew_value *crew_value_find(const crew_value *value, crew_string key)
{
    if (crew_value_type(value) != CREW_TYPE_OBJECT)
        return NULL;
    const struct crew_member *member = find_member(value, key);
    return member ? &member->value : NULL;
}

const crew_value *crew_value_get(const crew_value *value, const char *key)
{
    return crew_value_find(value, crew_str(key));
}

/* Keys that are arrays or objects are the same if all in them is, in the same order: each is looked at once.
 */
static bool keys_equal(const crew_value *a, const crew_value *b)
{
    size_t count = crew_value_count(a);
    if (a->type != b->type || (a->type != CREW_TYPE_ARRAY && a->type != CREW_TYPE_OBJECT))
        return crew_value_equal(a, b);
    if (count != crew_value_count(b))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!keys_equal(crew_value_at(a, i), crew_value_at(b, i)) ||
            (a->type == CREW_TYPE_OBJECT && !keys_equal(crew_value_key_at(a, i), crew_value_key_at(b, i))))
            return false;
    return true;
}

/* The member that counts for a key: of those that have it, the last. */
static const struct crew_member *member_of(const crew_value *object, const crew_value *key)
{
    for (size_t i = object->size; i-- > 0;)
        if (keys_equal(&object->members[i].key, key))
            return &object->members[i];
    return NULL;
}

/* Whether the object has all keys of the other, and, if values, their values. */
static bool has_members_of(const crew_value *object, const crew_value *other, bool values)
{
    for (size_t i = 0; i < other->size; i++) {
        const struct crew_member *its = &other->members[i], *mine = member_of(object, &its->key);
        bool counts = values && member_of(other, &its->key) == its;
        if (!mine || (counts && !crew_value_equal(&mine->value, &its->value)))
            return false;
    }
    return true;
}

bool crew_value_equal(const crew_value *a, const crew_value *b)
{
    if (crew_value_type(a) != crew_value_type(b))
        return false;
    switch (crew_value_type(a)) {
    case CREW_TYPE_NULL: return true;
    case CREW_TYPE_BOOL: return a->boolean == b->boolean;
    case CREW_TYPE_INT: return a->integer == b->integer;
    case CREW_TYPE_UINT: return a->natural == b->natural;
    case CREW_TYPE_DOUBLE: return a->number == b->number || (isnan(a->number) && isnan(b->number));
    case CREW_TYPE_STRING:
    case CREW_TYPE_BYTES: return crew_string_equal(crew_text_of(a), crew_text_of(b));
    case CREW_TYPE_EXT:
        return a->ext_type == b->ext_type && crew_string_equal(crew_text_of(a), crew_text_of(b));
    case CREW_TYPE_ARRAY:
        if (a->size != b->size)
            return false;
        for (size_t i = 0; i < a->size; i++)
            if (!crew_value_equal(&a->items[i], &b->items[i]))
                return false;
        return true;
    case CREW_TYPE_OBJECT: return has_members_of(a, b, true) && has_members_of(b, a, false);
    case CREW_TYPE_COUNT: break;
    }
    return false;
}

crew_value *crew_value_in(crew_arena *arena, crew_value value)
{
    crew_value *made = crew_arena_alloc(arena, sizeof *made);
    if (made)
        *made = value;
    return made;
}

static crew_status copy_into(crew_arena *arena, const crew_value *value, crew_value *copy, int depth);

static crew_status copy_text(crew_arena *arena, crew_value *copy)
{
    copy->bytes = crew_arena_string(arena, crew_text_of(copy)).data;
    return copy->bytes ? CREW_OK : CREW_NO_MEMORY;
}

static crew_status copy_items(crew_arena *arena, const crew_value *array, crew_value *copy, int depth)
{
    crew_status status = CREW_OK;
    copy->items = crew_arena_zalloc(arena, (array->size + (size_t)1) * sizeof *copy->items);
    if (!copy->items)
        return CREW_NO_MEMORY;
    for (size_t i = 0; i < array->size && status == CREW_OK; i++)
        status = copy_into(arena, &array->items[i], &copy->items[i], depth);
    return status;
}

static crew_status copy_members(crew_arena *arena, const crew_value *object, crew_value *copy, int depth)
{
    crew_status status = CREW_OK;
    copy->members = crew_arena_zalloc(arena, (object->size + (size_t)1) * sizeof *copy->members);
    if (!copy->members)
        return CREW_NO_MEMORY;
    for (size_t i = 0; i < object->size && status == CREW_OK; i++) {
        status = copy_into(arena, &object->members[i].key, &copy->members[i].key, depth);
        if (status == CREW_OK)
            status = copy_into(arena, &object->members[i].value, &copy->members[i].value, depth);
    }
    return status;
}

static crew_status copy_into(crew_arena *arena, const crew_value *value, crew_value *copy, int depth)
{
    *copy = *value;
    copy->room = 0;
    switch ((crew_type)value->type) {
    case CREW_TYPE_STRING:
    case CREW_TYPE_BYTES:
    case CREW_TYPE_EXT: return copy_text(arena, copy);
    case CREW_TYPE_ARRAY:
        return depth < CREW_DEPTH_MAX ? copy_items(arena, value, copy, depth + 1) : CREW_LIMIT;
    case CREW_TYPE_OBJECT:
        return depth < CREW_DEPTH_MAX ? copy_members(arena, value, copy, depth + 1) : CREW_LIMIT;
    default: return CREW_OK;
    }
}

crew_status crew_value_copy(crew_arena *arena, const crew_value *value, const crew_value **copy)
{
    crew_value *made = crew_value_in(arena, (crew_value){ .type = CREW_TYPE_NULL });
    if (!made)
        return CREW_NO_MEMORY;
    crew_status status = value ? copy_into(arena, value, made, 0) : CREW_OK;
    if (status == CREW_OK)
        *copy = made;
    return status;
}

/* Makes room for one more unit of item_size bytes in a block, doubling it when it is full. */
static void *grow(crew_arena *arena, crew_value *container, void *block, size_t item_size)
{
    bool full = container->room == 0 || container->size == (uint32_t)1 << container->room;
    if (!full)
        return block;
    uint8_t room = 2;
    while ((uint32_t)1 << room <= container->size)
        room++;
    void *larger = room < 31 ? crew_arena_alloc(arena, item_size << room) : NULL;
    if (!larger)
        return NULL;
    if (container->size)
        memcpy(larger, block, container->size * item_size);
    container->room = room;
    return larger;
}

crew_value *crew_array_place(crew_arena *arena, crew_value *array)
{
    crew_value *items = grow(arena, array, array->items, sizeof *items);
    if (!items)
        return NULL;
    array->items = items;
    return &items[array->size++];
}

struct crew_member *crew_object_place(crew_arena *arena, crew_value *object)
{
    struct crew_member *members = grow(arena, object, object->members, sizeof *members);
    if (!members)
        return NULL;
    object->members = members;
    return &members[object->size++];
}

/* Not to be foreseen, so that nobody can choose keys that all meet in one slot. */
static uint64_t process_seed;
static pthread_once_t seeded = PTHREAD_ONCE_INIT;

static void make_seed(void)
{
    if (getrandom(&process_seed, sizeof process_seed, GRND_NONBLOCK) < 0)
        process_seed = (uintptr_t)&process_seed ^ (uint64_t)time(NULL);
}

static uint64_t hash_key(crew_string key)
{
    uint64_t hash = process_seed ^ key.size;
    for (size_t i = 0; i < key.size; i += 8) {
        uint64_t eight = 0;
        memcpy(&eight, key.data + i, key.size - i < 8 ? key.size - i : 8);
        hash = (hash ^ eight) * 0x9E3779B97F4A7C15U;
        hash ^= hash >> 29 ^ process_seed;
    }
    return hash * 0xBF58476D1CE4E5B9U >> 20;
}

/* Few members are compared with one another, many are found by a table of their numbers, counted from 1. */
static size_t find_same(const struct crew_member *members, size_t count, uint32_t *slots, size_t mask)
{
    crew_string key = crew_text_of(&members[count].key);
    if (!slots) {
        size_t i = 0;
        while (i < count && !crew_string_equal(crew_text_of(&members[i].key), key))
            i++;
        return i;
    }
    size_t slot = hash_key(key) & mask;
    while (slots[slot] && !crew_string_equal(crew_text_of(&members[slots[slot] - 1].key), key))
        slot = (slot + 1) & mask;
    if (slots[slot])
        return slots[slot] - 1;
    slots[slot] = (uint32_t)count + 1;
    return count;
}

crew_status crew_object_unite(crew_value *object)
{
    enum { FEW = 16 };
    size_t count = object->size, room = 64, kept = 0;
    uint32_t *slots = NULL;
    while (room < 2 * count)
        room *= 2;
    if (count > FEW) {
        slots = crew_pages_new(room * sizeof *slots);
        if (!slots)
            return CREW_NO_MEMORY;
        memset(slots, 0, room * sizeof *slots);
        (void)pthread_once(&seeded, make_seed);
    }
    for (size_t i = 0; i < count; i++) {
        struct crew_member member = object->members[i];
        object->members[kept] = member;
        size_t same = find_same(object->members, kept, slots, room - 1);
        object->members[same].value = member.value;
        kept += same == kept;
    }
    crew_pages_free(slots, room * sizeof *slots);
    object->size = (uint32_t)kept;
    return CREW_OK;
}

static crew_status container_new(crew_arena *arena, crew_type type, crew_value **out)
{
    crew_value *made = crew_value_in(arena, (crew_value){ .type = (uint8_t)type });
    if (!made)
        return CREW_NO_MEMORY;
    *out = made;
    return CREW_OK;
}

crew_status crew_array_new(crew_arena *arena, crew_value **array)
{
    return container_new(arena, CREW_TYPE_ARRAY, array);
}

crew_status crew_object_new(crew_arena *arena, crew_value **object)
{
    return container_new(arena, CREW_TYPE_OBJECT, object);
}

crew_status crew_array_add(crew_arena *arena, crew_value *array, const crew_value *item)
{
    if (crew_value_type(array) != CREW_TYPE_ARRAY)
        return CREW_BAD_ARGUMENT;
    crew_value *place = crew_array_place(arena, array);
    if (!place)
        return CREW_NO_MEMORY;
    *place = item ? *item : (crew_value){ .type = CREW_TYPE_NULL };
    return CREW_OK;
}

crew_status crew_object_append(crew_arena *arena, crew_value *object, crew_string key,
                               const crew_value *value)
{
    if (crew_value_type(object) != CREW_TYPE_OBJECT || key.size > UINT32_MAX)
        return CREW_BAD_ARGUMENT;
    crew_string copy = crew_arena_string(arena, key);
    struct crew_member *member = copy.data ? crew_object_place(arena, object) : NULL;
    if (!member)
        return CREW_NO_MEMORY;
    member->key = crew_make_text(CREW_TYPE_STRING, copy);
    member->value = value ? *value : (crew_value){ .type = CREW_TYPE_NULL };
    return CREW_OK;
}

crew_status crew_object_add(crew_arena *arena, crew_value *object, crew_string key, const crew_value *value)
{
    struct crew_member *member =
        crew_value_type(object) == CREW_TYPE_OBJECT ? find_member(object, key) : NULL;
    if (!member)
        return crew_object_append(arena, object, key, value);
    member->value = value ? *value : (crew_value){ .type = CREW_TYPE_NULL };
    return CREW_OK;
}
