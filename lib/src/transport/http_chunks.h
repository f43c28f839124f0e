/* The chunked coding of a body (RFC 9112, section 7.1). Where it ends is where a server in front, or behind,
 * must find the next request as well: so lines' ends and trailers are looked at closely. */
#ifndef TRANSPORT_HTTP_CHUNKS_H
#define TRANSPORT_HTTP_CHUNKS_H

#include <rpcrew/value.h>

enum http_chunks_event {
    HTTP_CHUNKS_MORE, /* it has not ended */
    HTTP_CHUNKS_DATA, /* here is a piece of the body; there may be more behind it */
    HTTP_CHUNKS_END,  /* the last chunk and its trailers are behind us */
    HTTP_CHUNKS_BAD,  /* why says what is wrong with it */
    HTTP_CHUNKS_LARGE /* a line is too long, or there are too many trailers */
};

/* All zero at the beginning of a body. */
struct http_chunks {
    int at; /* in the grammar */
    bool has_size;
    uint64_t left;     /* of the chunk */
    size_t line_bytes; /* of the line, or of all trailers */
    bool is_first;     /* in a trailer's line */
    const char *why;
};

/* Takes bytes, says how many, and what came of them; *data is what they have of the body. */
enum http_chunks_event http_chunks_read(struct http_chunks *chunks, crew_string bytes, size_t *taken,
                                        crew_string *data);

#endif
