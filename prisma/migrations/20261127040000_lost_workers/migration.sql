-- AlterTable
ALTER TABLE "processes" ADD COLUMN     "loss_count" INTEGER NOT NULL DEFAULT 0;
