#include "support/colour.h"

#include <stdio.h>

static crew_status to_value(const void *object, crew_arena *arena, const crew_value **value)
{
    const struct colour *colour = object;
    char text[40];
    if (colour->red > 255)
        return CREW_OUT_OF_RANGE;
    (void)snprintf(text, sizeof text, "#%02x%02x%02x", colour->red, colour->green, colour->blue);
    return crew_pack(arena, value, "s", text);
}

static crew_status from_value(const crew_value *value, void *object)
{
    struct colour *colour = object;
    crew_string text;
    crew_status status = crew_value_string(value, &text);
    if (status != CREW_OK)
        return status;
    bool good =
        text.size == 7 && sscanf(text.data, "#%2x%2x%2x", &colour->red, &colour->green, &colour->blue) == 3;
    return good ? CREW_OK : CREW_MISMATCH;
}

const crew_custom_type colour_type = { "colour", "string",  "color", sizeof(struct colour),
                                       to_value, from_value };
