"""The control channel to the device: who it is, how warm, how much power; open to every process.

Identity is read from the orders; nothing here needs the exclusive lock that inference takes.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from . import thermal
from .enums import DeviceArchitectureTypes, NotificationId
from .folder import Folder, Orders
from .statuses import Status, failed

_WATCH_S = 0.02

_NAMES = {
    DeviceArchitectureTypes.HAILO8: ("Hailo-8", "HM218B1C2FAE", "HAILO-8 AI ACC M.2 MODULE"),
    DeviceArchitectureTypes.HAILO8L: ("Hailo-8", "HM21LB1C2LAE", "HAILO-8L AI ACC M.2 MODULE"),
    DeviceArchitectureTypes.HAILO10H: ("Hailo-10H", "HM410HB1C2FAE", "HAILO-10H AI ACC M.2 MODULE"),
}


@dataclass(frozen=True)
class Notification:
    """What the firmware reports: the zone after a temperature alarm, or two clocks in MHz."""

    notification_id: NotificationId
    temperature_zone: int = 0
    ts0_temperature: float = 0.0
    ts1_temperature: float = 0.0
    previous_clock: int = 0
    current_clock: int = 0


class Board:
    """One opened control channel."""

    def __init__(self, folder: Folder, device_id: str) -> None:
        self.folder = folder
        self.device_id = device_id
        self.is_open = True
        self._attachment = folder.orders().attachment
        self._watchers: dict[NotificationId, Callable[[Notification], None]] = {}
        self._watching = threading.Event()

    def orders(self) -> Orders:
        """What the device is; 36 when it is no longer there."""
        orders = self.folder.orders()
        if not self.folder.is_present() or orders.attachment != self._attachment:
            raise failed(Status.DRIVER_OPERATION_FAILED)
        return orders

    @property
    def architecture(self) -> DeviceArchitectureTypes:
        """Which chip it is."""
        return DeviceArchitectureTypes[self.orders().architecture]

    @property
    def names(self) -> tuple[str, str, str]:
        """Name of the board, part number, name of the product."""
        return _NAMES[self.architecture]

    def heat(self) -> thermal.Heat:
        """How warm it is."""
        self.orders()
        return self.folder.heat()

    def power_w(self) -> float:
        """What it draws; 18 on boards without a sensor, such as the Pi's."""
        if not self.orders().power_sensor:
            raise failed(Status.FW_CONTROL_FAILURE)
        return self.folder.heat().power_w

    def reset(self) -> None:
        """Reset the chip: whatever runs on it fails."""
        self.orders()
        self.folder.count_reset()

    def watch(
        self, notification_id: NotificationId, callback: Callable[[Notification], None]
    ) -> None:
        """Call back from another thread for each such notification."""
        self.orders()
        self._watchers[notification_id] = callback
        if not self._watching.is_set():
            self._watching.set()
            threading.Thread(
                target=self._watch, args=(self.folder.heat(),), name="hailo-notify", daemon=True
            ).start()

    def stop_watching(self, notification_id: NotificationId) -> None:
        """Call back no more."""
        self._watchers.pop(notification_id, None)

    def release(self) -> None:
        """Close the channel."""
        self.is_open = False
        self._watchers.clear()

    def _watch(self, before: thermal.Heat) -> None:
        while self.is_open:
            time.sleep(_WATCH_S)
            now = self.folder.heat()
            if now.zone != before.zone:
                self._notify(
                    Notification(
                        NotificationId.HEALTH_MONITOR_TEMPERATURE_ALARM,
                        temperature_zone=now.zone,
                        ts0_temperature=now.temperature_c,
                        ts1_temperature=now.temperature_c,
                    )
                )
            if now.clock_hz != before.clock_hz:
                self._notify(
                    Notification(
                        NotificationId.HEALTH_MONITOR_CLOCK_CHANGED_EVENT,
                        previous_clock=before.clock_hz // 1_000_000,
                        current_clock=now.clock_hz // 1_000_000,
                    )
                )
            before = now

    def _notify(self, notification: Notification) -> None:
        callback = self._watchers.get(notification.notification_id)
        if callback is None:
            return
        try:
            callback(notification)
        except BaseException:
            traceback.print_exc()
            print("terminate called: a callback raised an exception", file=sys.stderr, flush=True)
            os.abort()
