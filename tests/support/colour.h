/* A type of a program's own, for tests: a colour, which travels as "#rrggbb". */
#ifndef SUPPORT_COLOUR_H
#define SUPPORT_COLOUR_H

#include <rpcrew/value.h>

struct colour {
    unsigned red, green, blue;
};

extern const crew_custom_type colour_type;

#endif
