-- AlterTable
ALTER TABLE "processes" ADD COLUMN     "loss_count" INTEGER NOT NULL DEFAULT 0;

UPDATE "processes" SET "loss_count" = "crash_count" WHERE "status" IN ('pending', 'running') AND "crash_count" > 0;
