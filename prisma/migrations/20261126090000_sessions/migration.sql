-- AlterTable
ALTER TABLE "sessions" ADD COLUMN     "deleted_at" TIMESTAMPTZ(3),
ADD COLUMN     "forked_from_id" UUID,
ADD COLUMN     "title" TEXT,
ALTER COLUMN "workspace_key" DROP NOT NULL;

-- AlterTable
ALTER TABLE "session_entries" ADD COLUMN     "process_id" UUID,
ADD COLUMN     "spoken" BOOLEAN NOT NULL DEFAULT true;

-- CreateIndex
CREATE INDEX "sessions_forked_from_id_idx" ON "sessions"("forked_from_id");

-- CreateIndex
CREATE INDEX "processes_live_of_session" ON "processes"("session_id", "created_at", "id") WHERE (status IN ('pending', 'running'));

-- AddForeignKey
ALTER TABLE "sessions" ADD CONSTRAINT "sessions_forked_from_id_fkey" FOREIGN KEY ("forked_from_id") REFERENCES "sessions"("id") ON DELETE SET NULL ON UPDATE CASCADE;
