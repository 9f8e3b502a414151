export { findBubblewrap } from './bubblewrap-binary.js';
export { DirectoryInUseError, lockDirectory } from './directory-lock.js';
export { type EmbeddedService, type EmbeddedServiceOptions } from './embedded-service.js';
export { type EmbeddedPostgresOptions, startEmbeddedPostgres } from './postgres.js';
export { type EmbeddedRedisOptions, startEmbeddedRedis } from './redis.js';
