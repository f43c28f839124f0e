/* A header table of AMQP 0-9-1 as a value (its grammar: https://www.rabbitmq.com/amqp-0-9-1-errata, section
 * 3).
 */
#include "transport/amqp_link_impl.h"

#include "core/utf8.h"
#include "core/value.h"

#include <math.h>

enum { DEPTH_MOST = 32, ENTRIES_MOST = 1000 };

struct table {
    crew_arena *arena;
    int left; /* entries that may still be kept */
};

static const char ours[] = "rpcrew-"; /* what is told otherwise, as the deadline is */

static bool fill(struct table *t, const amqp_field_value_t *field, int depth, crew_value *out);

static bool fill_text(crew_arena *arena, crew_type type, amqp_bytes_t bytes, crew_value *out)
{
    crew_string text = crew_arena_string(arena, (crew_string){ bytes.bytes, bytes.len });
    if (type == CREW_TYPE_STRING && text.data && !crew_utf8_valid(text))
        type = CREW_TYPE_BYTES; /* the broker does not look */
    *out = crew_make_text(type, text);
    return text.data != NULL;
}

static bool fill_array(struct table *t, const amqp_array_t *array, int depth, crew_value *out)
{
    *out = (crew_value){ .type = CREW_TYPE_ARRAY };
    for (int i = 0; i < array->num_entries && t->left-- > 0; i++) {
        crew_value *place = crew_array_place(t->arena, out);
        if (!place || !fill(t, &array->entries[i], depth + 1, place))
            return false;
    }
    return true;
}

/* Names that are no UTF-8, too: no protocol has such keys. */
static bool is_left_out(amqp_bytes_t name, int depth)
{
    bool is_ours = !depth && name.len >= sizeof ours - 1 && memcmp(name.bytes, ours, sizeof ours - 1) == 0;
    return is_ours || !crew_utf8_valid((crew_string){ name.bytes, name.len });
}

static bool fill_table(struct table *t, const amqp_table_t *table, int depth, crew_value *out)
{
    *out = (crew_value){ .type = CREW_TYPE_OBJECT };
    for (int i = 0; i < table->num_entries && t->left-- > 0; i++) {
        const amqp_table_entry_t *entry = &table->entries[i];
        bool skipped = is_left_out(entry->key, depth);
        struct crew_member *place = skipped ? NULL : crew_object_place(t->arena, out);
        if (!skipped && (!place || !fill_text(t->arena, CREW_TYPE_STRING, entry->key, &place->key) ||
                         !fill(t, &entry->value, depth + 1, &place->value)))
            return false;
    }
    return true;
}

/* What has no type here, or stands too deep, is null. */
static bool fill(struct table *t, const amqp_field_value_t *field, int depth, crew_value *out)
{
    *out = (crew_value){ .type = CREW_TYPE_NULL };
    switch (field->kind) {
    case AMQP_FIELD_KIND_BOOLEAN: *out = crew_make_bool(field->value.boolean != 0); break;
    case AMQP_FIELD_KIND_I8: *out = crew_make_int(field->value.i8); break;
    case AMQP_FIELD_KIND_U8: *out = crew_make_int(field->value.u8); break;
    case AMQP_FIELD_KIND_I16: *out = crew_make_int(field->value.i16); break;
    case AMQP_FIELD_KIND_U16: *out = crew_make_int(field->value.u16); break;
    case AMQP_FIELD_KIND_I32: *out = crew_make_int(field->value.i32); break;
    case AMQP_FIELD_KIND_U32: *out = crew_make_int(field->value.u32); break;
    case AMQP_FIELD_KIND_I64: *out = crew_make_int(field->value.i64); break;
    case AMQP_FIELD_KIND_U64:
    case AMQP_FIELD_KIND_TIMESTAMP: *out = crew_make_uint(field->value.u64); break;
    case AMQP_FIELD_KIND_F32: *out = crew_make_double((double)field->value.f32); break;
    case AMQP_FIELD_KIND_F64: *out = crew_make_double(field->value.f64); break;
    case AMQP_FIELD_KIND_DECIMAL:
        *out = crew_make_double((double)(int32_t)field->value.decimal.value /
                                pow(10, field->value.decimal.decimals));
        break;
    case AMQP_FIELD_KIND_UTF8: return fill_text(t->arena, CREW_TYPE_STRING, field->value.bytes, out);
    case AMQP_FIELD_KIND_BYTES: return fill_text(t->arena, CREW_TYPE_BYTES, field->value.bytes, out);
    case AMQP_FIELD_KIND_ARRAY: return depth >= DEPTH_MOST || fill_array(t, &field->value.array, depth, out);
    case AMQP_FIELD_KIND_TABLE: return depth >= DEPTH_MOST || fill_table(t, &field->value.table, depth, out);
    default: break;
    }
    return true;
}

bool amqp_link_headers(crew_arena *arena, const amqp_basic_properties_t *properties, const crew_value **out)
{
    struct table t = { .arena = arena, .left = ENTRIES_MOST };
    crew_value made;
    *out = NULL;
    if (!(properties->_flags & AMQP_BASIC_HEADERS_FLAG))
        return true;
    if (!fill_table(&t, &properties->headers, 0, &made))
        return false;
    if (made.size)
        *out = crew_value_in(arena, made);
    return !made.size || *out;
}
