const MIB = 1024 * 1024;

/** The largest body of a request, and the largest message of a socket. */
export const MAX_BODY_BYTES = 4 * MIB;
