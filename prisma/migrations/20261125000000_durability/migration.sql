-- DropIndex
DROP INDEX "processes_pending";

-- AlterTable
ALTER TABLE "processes" DROP COLUMN "dispatched_at",
ADD COLUMN     "content_deleted_at" TIMESTAMPTZ(3),
ADD COLUMN     "crash_count" INTEGER NOT NULL DEFAULT 0,
ADD COLUMN     "first_seq" INTEGER NOT NULL DEFAULT 1,
ADD COLUMN     "has_started" BOOLEAN NOT NULL DEFAULT false,
ADD COLUMN     "max_attempts" INTEGER NOT NULL DEFAULT 1,
ADD COLUMN     "priority" SMALLINT NOT NULL DEFAULT 5,
ADD COLUMN     "queue_deadline" TIMESTAMPTZ(3),
ADD COLUMN     "retry_at" TIMESTAMPTZ(3),
ADD COLUMN     "retry_on" TEXT[] DEFAULT ARRAY[]::TEXT[],
ALTER COLUMN "fair_rank" DROP DEFAULT;
DROP SEQUENCE "processes_fair_rank_seq";

-- What runs while this is applied has started, as far as its log says.
UPDATE "processes" SET "has_started" = true WHERE "started_at" IS NOT NULL;

-- AlterTable
ALTER TABLE "process_events" ADD COLUMN     "bytes" INTEGER NOT NULL DEFAULT 0;
UPDATE "process_events" SET "bytes" = octet_length("payload"::text);
ALTER TABLE "process_events" ALTER COLUMN "bytes" DROP DEFAULT;

-- CreateTable
CREATE TABLE "process_commands" (
    "id" UUID NOT NULL,
    "process_id" UUID NOT NULL,
    "kind" TEXT NOT NULL,
    "payload" JSONB NOT NULL DEFAULT '{}',
    "user_id" UUID NOT NULL,
    "permission_id" UUID,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT now(),
    "handled_at" TIMESTAMPTZ(3),

    CONSTRAINT "process_commands_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "idempotency_keys" (
    "user_id" UUID NOT NULL,
    "key" TEXT NOT NULL,
    "request_hash" BYTEA NOT NULL,
    "process_id" UUID NOT NULL,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "idempotency_keys_pkey" PRIMARY KEY ("user_id","key")
);

-- CreateTable
CREATE TABLE "queue_clock" (
    "id" SMALLINT NOT NULL DEFAULT 1,
    "virtual_time" BIGINT NOT NULL DEFAULT 0,

    CONSTRAINT "queue_clock_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "queue_shares" (
    "user_id" UUID NOT NULL,
    "last_rank" BIGINT NOT NULL,

    CONSTRAINT "queue_shares_pkey" PRIMARY KEY ("user_id")
);

-- CreateIndex
CREATE INDEX "process_commands_unhandled" ON "process_commands"("process_id") WHERE (handled_at IS NULL);

-- CreateIndex
CREATE UNIQUE INDEX "process_commands_process_id_permission_id_key" ON "process_commands"("process_id", "permission_id");

-- CreateIndex
CREATE INDEX "idempotency_keys_process_id_idx" ON "idempotency_keys"("process_id");

-- CreateIndex
CREATE INDEX "idempotency_keys_expires_at_idx" ON "idempotency_keys"("expires_at");

-- CreateIndex
CREATE INDEX "processes_pending" ON "processes"("fair_rank", "id") WHERE (status = 'pending');

-- CreateIndex
CREATE INDEX "processes_pending_of_user" ON "processes"("user_id", "fair_rank") WHERE (status = 'pending');

-- CreateIndex
CREATE INDEX "processes_queue_deadline" ON "processes"("queue_deadline") WHERE (status = 'pending' AND queue_deadline IS NOT NULL);

-- CreateIndex
CREATE INDEX "processes_finished" ON "processes"("finished_at") WHERE (finished_at IS NOT NULL);

-- AddForeignKey
ALTER TABLE "process_commands" ADD CONSTRAINT "process_commands_process_id_fkey" FOREIGN KEY ("process_id") REFERENCES "processes"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "idempotency_keys" ADD CONSTRAINT "idempotency_keys_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "idempotency_keys" ADD CONSTRAINT "idempotency_keys_process_id_fkey" FOREIGN KEY ("process_id") REFERENCES "processes"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "queue_shares" ADD CONSTRAINT "queue_shares_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- The ranks go on where the sequence stopped.
INSERT INTO "queue_clock" ("virtual_time") SELECT coalesce(max("fair_rank"), 0) FROM "processes" WHERE "status" <> 'pending';
