import { UseFilters } from '@nestjs/common';
import { Ack, ConnectedSocket, MessageBody, SubscribeMessage, WebSocketGateway } from '@nestjs/websockets';
import type { Socket } from 'socket.io';
import { CurrentCaller, Requires } from '../platform/access/access.decorators.js';
import type { Caller } from '../platform/access/caller.js';
import { SocketProblemFilter } from '../platform/sockets/socket-problem.filter.js';
import type { Process } from '../processes/processes.schemas.js';
import { ProcessInboxService } from '../processes/process-inbox.service.js';
import { ProcessesService } from '../processes/processes.service.js';
import {
  type ExecuteMessage,
  ExecuteMessageSchema,
  type PermissionMessage,
  PermissionMessageSchema,
  type ProcessMessage,
  ProcessMessageSchema,
  type StatusMessage,
  type SteeringMessage,
  SteeringMessageSchema,
  StatusMessageSchema,
} from './claude.schemas.js';
import { ClaudeService } from './claude.service.js';
import { SocketFollows } from './socket-follows.js';

/** Every answer goes out before the events of its process. */
type Acknowledge =
  ((answer: { ok: true; process: Process; idempotentReplayed?: boolean }) => void) | undefined;

@UseFilters(SocketProblemFilter)
@WebSocketGateway({ path: '/socket.io', cors: false })
export class ClaudeGateway {
  constructor(
    private readonly claude: ClaudeService,
    private readonly processes: ProcessesService,
    private readonly inbox: ProcessInboxService,
    private readonly follows: SocketFollows,
  ) {}

  @SubscribeMessage('claude:execute')
  @Requires('claude:execute')
  async execute(
    @CurrentCaller() caller: Caller,
    @ConnectedSocket() socket: Socket,
    @MessageBody({ schema: ExecuteMessageSchema }) { idempotencyKey: key, ...request }: ExecuteMessage,
    @Ack() acknowledge: Acknowledge,
  ): Promise<void> {
    let idempotentReplayed = false;
    const onReplayed = () => (idempotentReplayed = true);
    const process = await this.claude.submit(caller, request, {
      idempotency: key === undefined ? null : { key, onReplayed },
      clientGone: this.follows.disconnectSignal(socket),
    });
    acknowledge?.({ ok: true, process, idempotentReplayed });
    this.follows.start(socket, caller, process, { after: process.firstSeq - 1 });
  }

  @SubscribeMessage('claude:status')
  @Requires('claude:read')
  async status(
    @CurrentCaller() caller: Caller,
    @ConnectedSocket() socket: Socket,
    @MessageBody({ schema: StatusMessageSchema }) { processId, after, include }: StatusMessage,
    @Ack() acknowledge: Acknowledge,
  ): Promise<void> {
    const process = await this.processes.findAt(caller, processId, after);
    acknowledge?.({ ok: true, process });
    if (after !== undefined) this.follows.start(socket, caller, process, { after, include });
  }

  @SubscribeMessage('claude:unfollow')
  @Requires('claude:read')
  async unfollow(
    @CurrentCaller() caller: Caller,
    @ConnectedSocket() socket: Socket,
    @MessageBody({ schema: ProcessMessageSchema }) { processId }: ProcessMessage,
    @Ack() acknowledge: Acknowledge,
  ): Promise<void> {
    const process = await this.processes.find(caller, processId);
    this.follows.stop(socket, processId);
    acknowledge?.({ ok: true, process });
  }

  @SubscribeMessage('claude:cancel')
  @Requires('claude:execute')
  async cancel(
    @CurrentCaller() caller: Caller,
    @MessageBody({ schema: ProcessMessageSchema }) { processId }: ProcessMessage,
    @Ack() acknowledge: Acknowledge,
  ): Promise<void> {
    const process = await this.processes.cancel(caller, processId);
    acknowledge?.({ ok: true, process });
  }

  @SubscribeMessage('claude:permission:respond')
  @Requires('claude:execute')
  async respond(
    @CurrentCaller() caller: Caller,
    @MessageBody({ schema: PermissionMessageSchema })
    { processId, permissionId, ...answer }: PermissionMessage,
    @Ack() acknowledge: Acknowledge,
  ): Promise<void> {
    const process = await this.inbox.answerPermission(caller, { processId, permissionId }, answer);
    acknowledge?.({ ok: true, process });
  }

  @SubscribeMessage('claude:message')
  @Requires('claude:execute')
  async say(
    @CurrentCaller() caller: Caller,
    @MessageBody({ schema: SteeringMessageSchema }) { processId, ...message }: SteeringMessage,
    @Ack() acknowledge: Acknowledge,
  ): Promise<void> {
    const process = await this.inbox.say(caller, processId, message);
    acknowledge?.({ ok: true, process });
  }

  @SubscribeMessage('claude:interrupt')
  @Requires('claude:execute')
  async interrupt(
    @CurrentCaller() caller: Caller,
    @MessageBody({ schema: ProcessMessageSchema }) { processId }: ProcessMessage,
    @Ack() acknowledge: Acknowledge,
  ): Promise<void> {
    const process = await this.inbox.interrupt(caller, processId);
    acknowledge?.({ ok: true, process });
  }
}
