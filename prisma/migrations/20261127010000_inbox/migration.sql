-- AlterTable
ALTER TABLE "processes" ADD COLUMN     "inbox_closed" BOOLEAN NOT NULL DEFAULT false,
ADD COLUMN     "message_count" INTEGER NOT NULL DEFAULT 0;

-- AlterTable
ALTER TABLE "process_commands" ALTER COLUMN "user_id" DROP NOT NULL;

-- CreateIndex
CREATE INDEX "process_events_permissions" ON "process_events"("process_id") WHERE (type IN ('permission_requested', 'permission_resolved'));
