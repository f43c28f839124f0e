/* The service that tests and peers call: one method for each thing that can be got wrong. */
#ifndef CONFORMANCE_SERVICE_H
#define CONFORMANCE_SERVICE_H

#include <rpcrew.h>

extern const crew_service conformance_service;

#endif
