-- AlterTable
ALTER TABLE "processes" ADD COLUMN     "events_pruned_at" TIMESTAMPTZ(3);

-- AlterTable
ALTER TABLE "queue_shares" DROP COLUMN "last_rank",
ADD COLUMN     "number" SERIAL NOT NULL;

-- CreateIndex
CREATE INDEX "sessions_workspace_key_idx" ON "sessions"("workspace_key");

-- CreateIndex
CREATE INDEX "processes_unpruned" ON "processes"("finished_at") WHERE (finished_at IS NOT NULL AND events_pruned_at IS NULL);

-- CreateIndex
CREATE INDEX "processes_undeleted" ON "processes"("content_deleted_at") WHERE (content_deleted_at IS NOT NULL AND events_pruned_at IS NULL);

-- CreateIndex
CREATE UNIQUE INDEX "queue_shares_number_key" ON "queue_shares"("number");
